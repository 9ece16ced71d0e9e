//! Who may look from the network: one-time invitations, and the sessions they become. No password exists.
//!
//! Pure: it takes `now` and random bytes, and knows no HTTP. Only hashes are kept, so that a memory image opens no
//! page. Everything is bounded; a restart of the daemon ends all sessions.
//!
//! Wrong codes are counted by the address they come from: whoever guesses shuts out himself and nobody else. 128 bits need no
//! limit over all addresses: a million guesses a second for half an hour find one of eight with a chance of 1 in 10^28.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// An invitation can be used for this long.
pub const INVITATION_LIFE: Duration = Duration::from_secs(30 * 60);

/// A session ends after this long, used or not.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Open invitations; one more lets go of the oldest.
const INVITATIONS_MAX: usize = 8;

/// Sessions; one more ends the oldest.
const SESSIONS_MAX: usize = 64;

/// Wrong tokens a minute from one address before its further attempts are refused unread.
const GUESSES_MAX: usize = 10;

/// Guesses that are remembered, over all addresses; one more forgets the oldest.
const REMEMBERED_MAX: usize = 1024;

const GUESS_WINDOW: Duration = Duration::from_secs(60);

/// 128 random bits as 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Draws one. Fails only if the kernel gives no random numbers.
    pub fn draw() -> Option<Self> {
        let mut bits = [0_u8; 16];
        SystemRandom::new().fill(&mut bits).ok()?;
        Some(Self(format!("{:032x}", u128::from_be_bytes(bits))))
    }

    /// For the link or the cookie; nowhere else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

type Hash = [u8; 32];

fn hash(text: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Unknown, used or too old.
    NotValid,
    /// Too many wrong ones of late; nothing was compared.
    TooManyGuesses,
}

/// Invitations and sessions.
#[derive(Debug, Default)]
pub struct Access {
    invitations: Vec<(Hash, Instant)>,
    sessions: Vec<(Hash, Instant)>,
    guesses: VecDeque<(IpAddr, Instant)>,
}

impl Access {
    /// Takes a fresh token as an invitation.
    pub fn invite(&mut self, token: &Token, now: Instant) {
        self.forget(now);
        if self.invitations.len() >= INVITATIONS_MAX {
            self.invitations.remove(0);
        }
        self.invitations.push((hash(&token.0), now));
    }

    /// Uses up an invitation that somebody at `from` hands in; `session` is what the cookie will carry. Hashes are
    /// compared, so the time it takes says nothing about the token.
    pub fn accept(
        &mut self,
        invitation: &str,
        session: &Token,
        (from, now): (IpAddr, Instant),
    ) -> Result<(), Refused> {
        self.forget(now);
        if self.guesses.iter().filter(|(address, _)| *address == from).count() >= GUESSES_MAX {
            return Err(Refused::TooManyGuesses);
        }
        let wanted = hash(invitation);
        let Some(found) = self.invitations.iter().position(|(known, _)| *known == wanted) else {
            if self.guesses.len() >= REMEMBERED_MAX {
                self.guesses.pop_front();
            }
            self.guesses.push_back((from, now));
            return Err(Refused::NotValid);
        };
        self.invitations.remove(found);
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.remove(0);
        }
        self.sessions.push((hash(&session.0), now));
        Ok(())
    }

    /// Until when a session is good; `None` if it is none.
    pub fn session_ends(&mut self, cookie: &str, now: Instant) -> Option<Instant> {
        self.forget(now);
        let wanted = hash(cookie);
        self.sessions.iter().find(|(known, _)| *known == wanted).map(|(_, since)| *since + SESSION_LIFE)
    }

    fn forget(&mut self, now: Instant) {
        let young = |life: Duration| move |since: &Instant| now.saturating_duration_since(*since) < life;
        self.invitations.retain(|(_, since)| young(INVITATION_LIFE)(since));
        self.sessions.retain(|(_, since)| young(SESSION_LIFE)(since));
        self.guesses.retain(|(_, since)| young(GUESS_WINDOW)(since));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 7, 9));

    fn token() -> Token {
        Token::draw().expect("random numbers")
    }

    #[test]
    fn an_invitation_opens_one_session_once_within_30_minutes() {
        let (mut access, now) = (Access::default(), Instant::now());
        let (invitation, session) = (token(), token());
        access.invite(&invitation, now);
        let late = now + INVITATION_LIFE;
        assert_eq!(access.accept(invitation.reveal(), &session, (HERE, late)), Err(Refused::NotValid));
        access.invite(&invitation, now);
        assert_eq!(access.accept(invitation.reveal(), &session, (HERE, now)), Ok(()));
        assert_eq!(
            access.accept(invitation.reveal(), &token(), (HERE, now)),
            Err(Refused::NotValid),
            "used up"
        );
        assert_eq!(access.session_ends(session.reveal(), now), Some(now + SESSION_LIFE));
        assert_eq!(access.session_ends(invitation.reveal(), now), None, "an invitation is no session");
        assert_eq!(access.session_ends(session.reveal(), now + SESSION_LIFE), None, "12 h, used or not");
    }

    #[test]
    fn of_ten_thousand_guesses_in_a_quarter_of_an_hour_at_most_200_are_compared() {
        let (mut access, now) = (Access::default(), Instant::now());
        access.invite(&token(), now);
        let compared = (0..10_000_u64)
            .filter(|i| {
                let at = now + Duration::from_millis(i * 90);
                access.accept(&format!("{i:032x}"), &token(), (HERE, at)) != Err(Refused::TooManyGuesses)
            })
            .count();
        assert!(compared <= 200, "{compared}");
        assert!(access.guesses.len() <= GUESSES_MAX);
    }

    #[test]
    fn whoever_guesses_shuts_out_nobody_else() {
        let (mut access, now) = (Access::default(), Instant::now());
        let invitation = token();
        access.invite(&invitation, now);
        for i in 0..100_000_u32 {
            let from = IpAddr::from([10, 0, 0, u8::try_from(i % 64).unwrap()]);
            let _ = access.accept(&format!("{i:032x}"), &token(), (from, now));
        }
        assert!(access.guesses.len() <= REMEMBERED_MAX);
        assert_eq!(
            access.accept("wrong", &token(), (IpAddr::from([10, 0, 0, 63]), now)),
            Err(Refused::TooManyGuesses)
        );
        assert_eq!(access.accept(invitation.reveal(), &token(), (HERE, now)), Ok(()));
    }

    #[test]
    fn everything_kept_is_bounded_and_the_oldest_goes_first() {
        let (mut access, now) = (Access::default(), Instant::now());
        let first = token();
        for i in 0..=SESSIONS_MAX {
            let (invitation, session) = (token(), if i == 0 { first.clone() } else { token() });
            access.invite(&invitation, now);
            assert_eq!(access.accept(invitation.reveal(), &session, (HERE, now)), Ok(()));
        }
        assert_eq!(access.session_ends(first.reveal(), now), None);
        assert_eq!(access.sessions.len(), SESSIONS_MAX);
        (0..100).for_each(|_| access.invite(&token(), now));
        assert_eq!(access.invitations.len(), INVITATIONS_MAX);
    }

    #[test]
    fn tokens_are_128_bits_and_do_not_show_in_logs() {
        let token = token();
        assert_eq!(token.reveal().len(), 32);
        assert_ne!(token, super::tests::token());
        assert!(!format!("{token:?}").contains(token.reveal()));
    }
}
