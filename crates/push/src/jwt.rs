//! A JSON web token in its compact form (RFC 7515, section 7.1). What signs it is its caller's.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;

/// `header.claims.signature`.
///
/// # Errors
/// Those of `sign`.
pub(crate) fn compact<E>(
    header: &Value,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<String, E> {
    let mut token = part(header.to_string().as_bytes());
    token.push('.');
    token.push_str(&part(claims.to_string().as_bytes()));
    let signature = sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&part(&signature));
    Ok(token)
}

fn part(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}
