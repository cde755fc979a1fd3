"""An SMTP server for tests: aiosmtpd, told by the recipient's address what to do.

Prints one JSON object a line: where it listens, then each mail it accepts, as it came. The part of the address before the @
is `STEP-CODE[-STATUS]` (`rcpt-550-5.1.1`, `dot-451`) or `drop-STEP`, `slow-STEP`, of the steps rcpt, data, text, dot.
`drop-dot` and `slow-dot` have accepted the mail, and do not say so. With `once-` before it, it happens once. Anything
else is taken.
"""
import argparse
import asyncio
import base64
import json
import signal
import ssl
import sys
import time

from aiosmtpd.smtp import SMTP, AuthResult

HOUR = 3600


def tell(**fact):
    print(json.dumps(fact), flush=True)


done = set()


def wish(recipients, step):
    """What the recipient asks for at this step: a reply, "drop", "slow", or nothing."""
    for address in recipients:
        words = address.split("@")[0].split("-")
        if words[0] == "once":
            words = words[1:]
            if step not in words[:2] or address in done:
                continue
            done.add(address)
        if words[0] == step:
            return " ".join(words[1:]) + f" <{address}> says so"
        if words[0] in ("drop", "slow") and words[1:2] == [step]:
            return words[0]
    return None


class Server(SMTP):
    mails = 0
    told = False

    def connection_made(self, transport):
        super().connection_made(transport)
        # After STARTTLS it is made once more.
        if not self.told:
            self.told = True
            tell(opened=id(self))

    def connection_lost(self, error):
        super().connection_lost(error)
        tell(closed=id(self))

    async def act(self, what):
        """Whether the step goes on."""
        if what is None:
            return True
        if what == "drop":
            self.transport.abort()
        elif what == "slow":
            await asyncio.sleep(HOUR)
        else:
            await self.push(what)
            if what.startswith("421"):
                self.transport.close()
        return False

    async def smtp_MAIL(self, arg):
        if self.event_handler.limit and self.mails >= self.event_handler.limit:
            await self.act("421 4.7.0 too many mails on this connection")
            return
        await super().smtp_MAIL(arg)

    async def smtp_DATA(self, arg):
        if not self.envelope.rcpt_tos:
            await super().smtp_DATA(arg)
            return
        if not await self.act(wish(self.envelope.rcpt_tos, "data")):
            return
        if what := wish(self.envelope.rcpt_tos, "text"):
            await self.push("354 go on")
            await self.act(what)
            return
        await super().smtp_DATA(arg)


class Handler:
    def __init__(self, limit, pipelining, silent):
        self.limit, self.pipelining, self.silent = limit, pipelining, silent

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        return responses[:-1] + ["250-PIPELINING"] + responses[-1:] if self.pipelining else responses

    async def handle_RCPT(self, server, session, envelope, address, options):
        what = wish([address], "rcpt")
        if what in ("drop", "slow"):
            await server.act(what)
            return "451 gone"
        if what and what.startswith("421"):
            asyncio.get_running_loop().call_soon(server.transport.close)
        if what:
            return what
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        what = wish(envelope.rcpt_tos, "dot")
        if what not in (None, "drop", "slow"):
            return what
        server.mails += 1
        if not self.silent:
            tell(
                hello=session.host_name,
                mail_from=envelope.mail_from,
                rcpt_to=envelope.rcpt_tos,
                user=(session.auth_data or b"").decode(),
                tls=session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None,
                connection=id(server),
                nth=server.mails,
                at=time.time(),
                data=base64.b64encode(envelope.original_content).decode(),
            )
        if what:
            await server.act(what)
        return "250 2.0.0 OK"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", choices=["implicit", "starttls"])
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--limit", type=int, help="mails a connection")
    parser.add_argument("--idle", type=float, default=300, help="seconds until it closes an idle connection")
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument("--silent", action="store_true", help="tells of no mail")
    args = parser.parse_args()

    context = None
    if args.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.certificate, args.key)

    def authenticate(server, session, envelope, mechanism, data):
        good = (data.login.decode(), data.password.decode()) == (args.user, args.password)
        return AuthResult(success=good, handled=False, auth_data=data.login)

    handler = Handler(args.limit, not args.no_pipelining, args.silent)
    loop = asyncio.get_running_loop()

    def session():
        return Server(
            handler,
            hostname="mail.test",
            tls_context=context if args.tls == "starttls" else None,
            require_starttls=args.tls == "starttls",
            auth_required=args.user is not None,
            auth_require_tls=args.tls == "starttls",
            authenticator=authenticate,
            timeout=args.idle,
            loop=loop,
        )

    server = await loop.create_server(session, "127.0.0.1", 0, ssl=context if args.tls == "implicit" else None)
    tell(port=server.sockets[0].getsockname()[1])
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


sys.exit(asyncio.run(main()))
