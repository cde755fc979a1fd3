//! What a server's reply, or its silence, means for the mail in hand.
//!
//! Everything turns on the final dot (RFC 5321, 4.2.5): until it is sent the server must not keep the mail, afterwards
//! only its reply tells. The texts of replies often repeat the address, so none of them leaves this file.

use std::fmt;
use std::time::Duration;

/// How long to leave a server alone that asks for it and does not say how long.
const SLOW_DOWN: Duration = Duration::from_secs(60);
/// The same for a server that is not there.
const AWAY: Duration = Duration::from_secs(10);
/// Nobody is left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// What became of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server has it and will see to it.
    Sent {
        /// What it said.
        reply: Reply,
    },
    /// Not sent, for a reason that may pass: sending it again cannot make it arrive twice.
    Later {
        /// What happened, without an address.
        why: String,
        /// How long the server asks to wait, where it says so.
        retry_after: Option<Duration>,
    },
    /// Not sent, and no other mail would be now: the server is away, does not let us in, or has had enough of us.
    SlowDown {
        /// What happened, without an address.
        why: String,
        /// How long to send nothing.
        wait: Duration,
    },
    /// The server will never take this mail.
    Refused {
        /// What it said.
        reply: Reply,
        /// Nobody has this address: nothing should be sent there again.
        suppress: bool,
    },
    /// The connection was lost, or the time was up, after the final dot: the server may have the mail.
    Unknown {
        /// What happened, without an address.
        why: String,
    },
}

/// A server's reply in its numbers: `550 5.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// RFC 5321.
    pub code: u16,
    /// RFC 3463, where the server gives it: class, subject, detail.
    pub status: Option<(u16, u16, u16)>,
}

impl Reply {
    /// The enhanced status is the text's first word, and of the code's class (RFC 2034); else it is just text.
    pub(super) fn new(code: u16, text: &str) -> Self {
        let number =
            |part: &str| part.parse().ok().filter(|_| part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit()));
        let mut parts = text.split_whitespace().next().unwrap_or_default().split('.').map(number);
        let status = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(class)), Some(Some(subject)), Some(Some(detail)), None) if class == code / 100 => {
                Some((class, subject, detail))
            }
            _ => None,
        };
        Reply { code, status }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.status {
            Some((class, subject, detail)) => write!(f, " {class}.{subject}.{detail}"),
            None => Ok(()),
        }
    }
}

/// How far a mail has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Tls,
    Greeting,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The mail's text, before the final dot.
    Text,
    /// The final dot is on its way, or was.
    End,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Connect => "connecting",
            Step::Tls => "the TLS handshake",
            Step::Greeting => "the greeting",
            Step::StartTls => "STARTTLS",
            Step::Auth => "AUTH",
            Step::Mail => "MAIL",
            Step::Rcpt => "RCPT",
            Step::Data => "DATA",
            Step::Text => "the text",
            Step::End => "the final dot",
        }
    }
}

/// Why a step did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// A negative reply, and how long it asks to wait.
    Reply(Reply, Option<Duration>),
    /// No reply, or none that is of this protocol.
    Silence(String),
}

/// A step that did not succeed.
#[derive(Debug)]
pub(super) struct Failed {
    pub step: Step,
    pub fault: Fault,
}

impl Failed {
    pub fn silence(step: Step, why: impl fmt::Display) -> Self {
        Failed { step, fault: Fault::Silence(why.to_string()) }
    }

    /// Takes a library's error apart.
    pub fn smtp(step: Step, error: &lettre::transport::smtp::Error) -> Self {
        let fault = match error.status() {
            Some(code) => {
                let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                Fault::Reply(Reply::new(code.into(), &text), wait(&text))
            }
            // Its text quotes what the server said.
            None if error.is_response() => Fault::Silence("the reply breaks off or is not of SMTP".to_owned()),
            None => Fault::Silence(root(error)),
        };
        Failed { step, fault }
    }

    /// What this means for the mail.
    pub fn answer(self) -> Answer {
        let Failed { step, fault } = self;
        let (reply, retry_after) = match fault {
            Fault::Reply(reply, wait) => (reply, wait),
            Fault::Silence(why) => {
                let why = format!("{}: {why}", step.name());
                return match step {
                    Step::End => Answer::Unknown { why },
                    Step::Connect | Step::Tls | Step::Greeting | Step::StartTls | Step::Auth => {
                        Answer::SlowDown { why, wait: AWAY }
                    }
                    Step::Mail | Step::Rcpt | Step::Data | Step::Text => Answer::Later { why, retry_after: None },
                };
            }
        };
        let why = format!("{}: {reply}", step.name());
        let about_mail = matches!(step, Step::Rcpt | Step::Data | Step::Text | Step::End);
        // A refusal before the recipient was named is about us (password, sender, TLS): every mail would get it, and goes when
        // it is mended. For now is for now where it answers MAIL: some servers look at the sender there.
        let about_us = !about_mail && (reply.code >= 500 || step != Step::Mail);
        if is_slow_down(reply) || about_us {
            Answer::SlowDown { why, wait: retry_after.unwrap_or(SLOW_DOWN) }
        } else if reply.code >= 500 && about_mail {
            Answer::Refused { reply, suppress: is_dead(reply) }
        } else {
            Answer::Later { why, retry_after }
        }
    }
}

/// 421 closes the connection; 454 is Amazon's word for too many; 4.7.x is policy, of which 4.7.1 is greylisting, which
/// means one recipient only; 4.3.2 and 4.4.5 are a server that takes nothing now.
fn is_slow_down(reply: Reply) -> bool {
    match (reply.code, reply.status) {
        (421, _) | (454, None) => true,
        (400..500, Some((4, 7, detail))) => detail != 1,
        (400..500, Some((4, 3, 2) | (4, 4, 5))) => true,
        _ => false,
    }
}

/// No such mailbox, no such domain, not an address, moved, takes no mail. Not 5.1.0, 5.1.7 and 5.1.8, which servers say of
/// the sender, too.
fn is_dead(reply: Reply) -> bool {
    matches!(reply.status, Some((5, 1, 1 | 2 | 3 | 6 | 10)))
}

/// "in 300 seconds", "after 5 minutes": there is no standard for it, and this is how servers put it.
fn wait(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['.', ',', ';', ')', '('])).collect();
    let found = words.windows(3).find_map(|three| match three {
        ["in" | "after", number, unit] => {
            let number: u64 = number.parse().ok()?;
            let seconds = match unit.trim_end_matches('s') {
                "" | "sec" | "second" => 1,
                "m" | "min" | "minute" => 60,
                "h" | "hour" => 3_600,
                _ => return None,
            };
            Some(Duration::from_secs(number.saturating_mul(seconds)))
        }
        _ => None,
    });
    found.map(|wait| wait.min(LONGEST_WAIT))
}

/// The innermost cause: an operating system's or TLS's own words.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(step: Step, code: u16, text: &str) -> Answer {
        Failed { step, fault: Fault::Reply(Reply::new(code, text), wait(text)) }.answer()
    }

    #[test]
    fn an_enhanced_status_is_read_where_it_is_one() {
        for (code, text, shown) in [
            (550, "5.1.1 <ada@example.org>: no such user", "550 5.1.1"),
            (450, "4.7.500 busy", "450 4.7.500"),
            (550, "no such user", "550"),
            (550, "", "550"),
            (550, "4.1.1 of another class", "550"),
            (550, "5.1 short", "550"),
            (550, "5.1.1.1 long", "550"),
            (550, "5.1.+1", "550"),
            (550, "5.1.99999999", "550"),
        ] {
            assert_eq!(Reply::new(code, text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn silence_is_unknown_after_the_final_dot_later_before_it_and_for_every_mail_before_the_first() {
        use Step::{Auth, Connect, Data, Greeting, Mail, Rcpt, StartTls, Text, Tls};
        for step in [Connect, Tls, Greeting, StartTls, Auth] {
            assert!(matches!(Failed::silence(step, "x").answer(), Answer::SlowDown { wait: AWAY, .. }), "{step:?}");
        }
        for step in [Mail, Rcpt, Data, Text] {
            assert!(matches!(Failed::silence(step, "x").answer(), Answer::Later { .. }), "{step:?}");
        }
        let why = "the final dot: x".to_owned();
        assert_eq!(Failed::silence(Step::End, "x").answer(), Answer::Unknown { why });
    }

    #[test]
    fn a_negative_reply_is_never_unknown() {
        for step in [Step::Greeting, Step::Auth, Step::Mail, Step::Rcpt, Step::Data, Step::End] {
            for code in (400..600).step_by(10) {
                let answer = answer(step, code, "");
                assert!(!matches!(answer, Answer::Unknown { .. } | Answer::Sent { .. }), "{step:?} {code}: {answer:?}");
            }
        }
    }

    #[test]
    fn replies_about_the_recipient_are_judged_by_their_numbers() {
        let refused = |code, text: &str, suppress| {
            assert_eq!(answer(Step::Rcpt, code, text), Answer::Refused { reply: Reply::new(code, text), suppress });
        };
        refused(550, "5.1.1 no such user", true);
        refused(556, "5.1.10 takes no mail", true);
        refused(550, "5.1.8 sender's domain not found", false);
        refused(550, "5.1.0 sender rejected", false);
        refused(550, "5.7.1 spam", false);
        refused(552, "5.2.2 mailbox full", false);
        refused(550, "no such user", false);
        for (code, text) in [(450, "4.2.0 greylisted"), (451, "4.7.1 greylisted"), (452, "4.2.2 full"), (450, "")] {
            assert!(matches!(answer(Step::Rcpt, code, text), Answer::Later { .. }), "{text}");
        }
        for (code, text) in [(421, ""), (450, "4.7.28 rate"), (454, "Throttling failure"), (452, "4.3.2 not now")] {
            assert!(matches!(answer(Step::Rcpt, code, text), Answer::SlowDown { .. }), "{text}");
        }
    }

    #[test]
    fn a_refusal_of_ourselves_is_not_held_against_the_mail() {
        for step in [Step::Greeting, Step::StartTls, Step::Auth, Step::Mail] {
            assert!(matches!(answer(step, 550, "5.1.8 who are you"), Answer::SlowDown { .. }), "{step:?}");
        }
        let Answer::SlowDown { why, .. } = answer(Step::Auth, 535, "5.7.8 wrong password for ada@example.org") else {
            panic!()
        };
        assert_eq!(why, "AUTH: 535 5.7.8");
    }

    #[test]
    fn a_server_that_says_how_long_is_believed_within_bounds() {
        for (text, seconds) in [
            ("4.2.0 greylisted, try again in 300 seconds", Some(300)),
            ("4.7.0 too many, come back after 5 minutes.", Some(300)),
            ("in 1 hour", Some(3_600)),
            ("retry in 30s", None),
            ("in 99999999999999999999 seconds", None),
            ("in 9999999999999 hours", Some(86_400)),
            ("in 2 places", None),
        ] {
            assert_eq!(wait(text), seconds.map(Duration::from_secs), "{text}");
        }
        let wait = Duration::from_secs(300);
        assert!(matches!(answer(Step::Mail, 421, "in 5 minutes"), Answer::SlowDown { wait: w, .. } if w == wait));
        assert!(matches!(answer(Step::Mail, 421, ""), Answer::SlowDown { wait: SLOW_DOWN, .. }));
    }
}
