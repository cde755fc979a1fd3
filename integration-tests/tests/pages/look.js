// What a person would do with the pages. `page` is Playwright's, `given` has the address and the orders.
const saw = {};
const title = () => page.locator('main h1').first().innerText();
const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

await page.goto(given.at + '/');
saw.listed = await page.getByRole('link', { name: given.order }).isVisible();
saw.titles = [await title()];
for (const [name, path] of [['Demand', 'demand'], ['Campaigns', 'campaigns'], ['Stages', 'stages'], ['Dead letters', 'dead']]) {
  await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name }).click();
  await page.waitForURL('**/' + path);
  saw.titles.push(await title());
}
await page.goto(given.at + '/demand');
saw.demand = [await page.locator('tbody .id').innerText(), await page.locator('tbody .strong').innerText()];
await page.goto(given.at + '/campaigns');
saw.campaign = await page.locator('svg.progress').getAttribute('aria-label');

// Kafka is asked beside the request, so the first look may say no more than that.
await page.goto(given.at + '/stages');
for (let look = 0; look < 30 && !await page.locator('table.list').count(); look++) await page.reload();
saw.stages = await page.locator('table.list tbody strong').allInnerTexts();

await page.goto(given.at + '/dead');
for (let look = 0; look < 30 && !await page.locator('.letter').count(); look++) await page.reload();
saw.letter = await page.locator('.letter h2').innerText();
saw.command = await page.locator('.letter code').first().innerText();

await page.keyboard.press('/');
await page.keyboard.type(given.order);
await page.keyboard.press('Enter');
await page.waitForURL('**/orders/' + given.order);
saw.found = await page.locator('h1 .id').innerText();
saw.status = await page.locator('h1 .chip').first().innerText();
saw.lanes = await page.locator('.row.lane h2').evaluateAll((all) => all.map((h) => h.childNodes[1].textContent.trim()));
saw.thin = await page.locator('rect.bar').evaluateAll((all) =>
  all.filter((bar) => bar.getBoundingClientRect().width < 2).map((bar) => bar.outerHTML));
saw.curves = await page.locator('.links path.line').count();

await page.getByRole('link', { name: 'shipping.dispatch' }).first().click();
const panel = page.locator('.panel:visible');
saw.attributes = (await panel.innerText()).includes('shipping.carrier');
await panel.getByRole('link', { name: 'pick', exact: true }).click();
saw.jumped = await page.locator('.panel:visible h3').innerText();
await page.keyboard.press('Escape');
saw.closed = await page.locator('.panel:visible').count() === 0;

await page.goto(given.report);
saw.report = await page.locator('.row.lane + .row .name').allInnerTexts();

await page.goto(given.at + '/orders/' + encodeURIComponent(given.script));
saw.text = await page.locator('h1 .id').innerText();
saw.why = (await page.locator('.story').innerText()).includes('Dead letter');

await page.setViewportSize({ width: 390, height: 844 });
saw.wide = [];
for (const path of ['/orders', '/orders/' + given.order, '/demand', '/campaigns', '/stages', '/dead']) {
  await page.goto(given.at + path);
  if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) saw.wide.push(path);
}
saw.grounds = [];
for (const colorScheme of ['light', 'dark']) {
  await page.emulateMedia({ colorScheme });
  saw.grounds.push(await ground());
}
return saw;
