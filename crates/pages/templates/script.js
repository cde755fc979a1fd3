// Nothing here is needed: every page works without it.
(() => {
  const spans = [...document.querySelectorAll('.row.span > a.open')];
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (event.key === '/' && !typing) {
      const find = document.getElementById('find');
      if (find) { find.focus(); event.preventDefault(); }
    }
    if (typing || !spans.length) return;
    const open = document.querySelector('.row.span:target > a.open');
    if (event.key === 'Escape' && open) {
      location.hash = 'journey';
      open.focus({ preventScroll: true });
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      const at = spans.indexOf(spans.includes(document.activeElement) ? document.activeElement : open);
      const next = spans[Math.min(Math.max(at + step, 0), spans.length - 1)];
      next.focus({ preventScroll: true });
      if (open) location.replace(next.hash);
      next.scrollIntoView({ block: 'nearest' });
      event.preventDefault();
    }
  });
})();
