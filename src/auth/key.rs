//! Reads the public key that tokens are verified with, and finds out which algorithm it is for.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey};

use super::AuthSetupError;

/// The key of `JWT_PUBLIC_KEY_FILE`, and the one algorithm that it is for.
pub(super) fn read_public_key(path: PathBuf) -> Result<(DecodingKey, Algorithm), AuthSetupError> {
    match std::fs::read(&path) {
        Err(source) => Err(AuthSetupError::KeyFile { path, source }),
        Ok(pem) => public_key(&pem).map_err(|reason| AuthSetupError::UnusableKey { path, reason }),
    }
}

fn public_key(pem: &[u8]) -> Result<(DecodingKey, Algorithm), &'static str> {
    /// The DER of the object identifier of P-256, 1.2.840.10045.3.1.7 (RFC 5480 section 2.1.1.1).
    const P_256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    /// An RSA public key with a modulus of 2048 bits has no shorter DER (RFC 8017 appendix A.1.1).
    const RSA_2048_BYTES: usize = 260;

    let text = String::from_utf8_lossy(pem);
    if text.contains("PRIVATE KEY-----") {
        return Err(
            "this is a private key; the node needs its public half only (openssl pkey -pubout)",
        );
    }
    if text.contains("CERTIFICATE-----") {
        return Err("this is a certificate; take its key out (openssl x509 -pubkey -noout)");
    }
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        let long_enough = key
            .try_get_as_bytes()
            .is_ok_and(|der| der.len() >= RSA_2048_BYTES);
        return long_enough
            .then_some((key, Algorithm::RS256))
            .ok_or("an RSA key needs 2048 bits or more");
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let base64: String = text
            .lines()
            .filter(|line| !line.contains("-----"))
            .map(str::trim)
            .collect();
        let der = STANDARD.decode(base64).unwrap_or_default();
        let on_p_256 = der.windows(P_256.len()).any(|window| window == P_256);
        return on_p_256
            .then_some((key, Algorithm::ES256))
            .ok_or("its curve is not P-256, the one of ES256");
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Ok((key, Algorithm::EdDSA));
    }
    Err("this is not a PEM file with a public key for RS256, ES256 or EdDSA (Ed25519)")
}
