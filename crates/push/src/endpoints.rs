//! Which endpoints are called: <https://owasp.org/www-community/attacks/Server_Side_Request_Forgery> is why not all.

use crate::{Settings, SettingsError};
use reqwest::Url;

/// Windows' are the longest known, with some 500 bytes.
pub(crate) const ENDPOINT_LIMIT: usize = 2_048;

/// The push services of the browsers, and what the settings add to them.
///
/// An endpoint is acceptable if it is `https` on port 443 at a host of `push.hosts`, without a user or a password. An
/// address in the place of a name never is. Where the name leads is looked at when it is called: to public addresses
/// only. An origin of `push.origins` is exempt from all of this, wherever it leads.
#[derive(Clone, Debug)]
pub struct Endpoints {
    hosts: Vec<Host>,
    origins: Vec<Url>,
}

/// Why an endpoint is not called. The text does not repeat it but for its host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nobody's is that long.
    #[error("the endpoint is longer than {ENDPOINT_LIMIT} bytes")]
    TooLong,
    /// It cannot be called at all.
    #[error("the endpoint is not a URL")]
    NotUrl,
    /// A user or a password.
    #[error("the endpoint holds a user or a password")]
    Credentials,
    /// `http` or something else.
    #[error("the endpoint is not https")]
    Scheme,
    /// No name.
    #[error("the endpoint's host is an address, not a name")]
    Address,
    /// Not 443.
    #[error("the endpoint names a port")]
    Port,
    /// Not on the list.
    #[error("the endpoint's host {0} is not a known push service: see push.hosts")]
    Host(String),
}

/// Whom a call may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Public addresses.
    Public,
    /// Anybody: the operator named the origin.
    Anywhere,
}

#[derive(Clone, Debug)]
enum Host {
    /// `example.org`.
    Exactly(String),
    /// `*.example.org`, kept as `.example.org`: at least one label more.
    Below(String),
}

impl Endpoints {
    /// The endpoints of `push.hosts` and `push.origins`.
    ///
    /// # Errors
    /// One of these is not a host or an origin.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let hosts = settings.hosts.iter().map(|text| host(text)).collect::<Result<_, _>>()?;
        let origins = settings.origins.iter().map(|text| origin(text)).collect::<Result<_, _>>()?;
        Ok(Endpoints { hosts, origins })
    }

    /// Whether messages are sent to an endpoint.
    ///
    /// # Errors
    /// The reason why not, for whoever subscribes.
    pub fn acceptable(&self, endpoint: &str) -> Result<(), EndpointError> {
        self.admit(endpoint).map(drop)
    }

    pub(crate) fn admit(&self, endpoint: &str) -> Result<(Url, Reach), EndpointError> {
        if endpoint.len() > ENDPOINT_LIMIT {
            return Err(EndpointError::TooLong);
        }
        let url = Url::parse(endpoint).map_err(|_| EndpointError::NotUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        if self.origins.iter().any(|origin| origin.origin() == url.origin()) {
            return Ok((url, Reach::Anywhere));
        }
        // A parsed name, in lower case and punycode; 0x7f.1 and its like have become addresses by now.
        let Some(name) = url.host_str() else { return Err(EndpointError::NotUrl) };
        if is_address(name) {
            return Err(EndpointError::Address);
        }
        if url.scheme() != "https" {
            return Err(EndpointError::Scheme);
        }
        if url.port().is_some() {
            return Err(EndpointError::Port);
        }
        if !self.hosts.iter().any(|host| host.matches(name)) {
            return Err(EndpointError::Host(name.to_owned()));
        }
        Ok((url, Reach::Public))
    }
}

impl Host {
    fn matches(&self, name: &str) -> bool {
        match self {
            Host::Exactly(host) => name == host,
            Host::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// A name as a URL has it: whoever writes it otherwise would wait for matches in vain.
fn host(text: &str) -> Result<Host, SettingsError> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let parsed = Url::parse(&format!("https://{name}/")).ok();
    if is_address(name) || parsed.is_none_or(|url| url.host_str() != Some(name)) || name.contains('*') {
        return Err(SettingsError::Host(text.to_owned()));
    }
    Ok(if name.len() < text.len() { Host::Below(format!(".{name}")) } else { Host::Exactly(name.to_owned()) })
}

/// An origin as it is written, with or without the slash of a URL, and nothing else.
fn origin(text: &str) -> Result<Url, SettingsError> {
    let wrong = || SettingsError::Origin(text.to_owned());
    let url = Url::parse(text).map_err(|_| wrong())?;
    let alone = url.origin().ascii_serialization() == text.strip_suffix('/').unwrap_or(text);
    if matches!(url.scheme(), "http" | "https") && alone { Ok(url) } else { Err(wrong()) }
}
