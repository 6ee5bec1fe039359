//! The rules of tokens, as tables, with keys made for these tests.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use serde_json::{Map, json};

use super::*;

const SECRET: &str = "a secret of the tests, of 32 bytes or more";

const RS256: Pair = (
    include_bytes!("test_keys/rs256.private.pem"),
    include_bytes!("test_keys/rs256.public.pem"),
);
const ES256: Pair = (
    include_bytes!("test_keys/es256.private.pem"),
    include_bytes!("test_keys/es256.public.pem"),
);
const EDDSA: Pair = (
    include_bytes!("test_keys/eddsa.private.pem"),
    include_bytes!("test_keys/eddsa.public.pem"),
);

/// The private and the public half of a key, as PEM.
type Pair = (&'static [u8], &'static [u8]);

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    auth: config::Auth,
}

fn settings(arguments: &[&str]) -> config::Auth {
    Arguments::parse_from(std::iter::once(&"bellhop").chain(arguments)).auth
}

fn secret() -> Secret {
    Secret::new(SECRET.to_owned())
}

fn verifier(arguments: &[&str]) -> Verifier {
    Verifier::new(&settings(arguments), Some(&secret())).unwrap()
}

fn with_public_key(pem: &[u8]) -> Result<Verifier, AuthSetupError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    std::fs::write(&path, pem).unwrap();
    Verifier::new(
        &settings(&[&format!("--jwt-public-key-file={}", path.display())]),
        None,
    )
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs whatever it is given, well-formed or not.
fn signed(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn hs256(header: &str, claims: &str) -> String {
    signed(
        header,
        claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::HS256,
    )
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A token with the claims of a good one, some set anew, and those that are null left out.
fn token(changes: Value) -> String {
    let mut claims = Map::from_iter([
        ("sub".to_owned(), json!("42")),
        ("exp".to_owned(), json!(now() + 600)),
    ]);
    let Value::Object(changes) = changes else {
        panic!("claims are an object")
    };
    claims.extend(changes);
    claims.retain(|_, value| !value.is_null());
    hs256(HEADER, &Value::Object(claims).to_string())
}

fn code(result: &Result<Identity, Refusal>) -> &'static str {
    result
        .as_ref()
        .map_or_else(|refusal| refusal.code(), |_| "")
}

fn assert_codes(verifier: &Verifier, cases: &[(&str, Value, &str)]) {
    for (what, claims, expected) in cases {
        let result = verifier.verify(&token(claims.clone()));
        assert_eq!(code(&result), *expected, "{what}: {result:?}");
    }
}

#[test]
fn a_token_says_who_is_asking() {
    let (issued, expires) = (now() - 5, now() + 600);
    let claims = json!({"iat": issued, "exp": expires, "scope": "openid notifications:publish"});
    let identity = verifier(&[]).verify(&token(claims)).unwrap();
    let user = UserId::try_from("42").unwrap();
    let expected = Identity {
        user,
        publisher: true,
        lifetime: Lifetime {
            issued_at: Some(issued),
            expires_at: expires,
        },
    };
    assert_eq!(identity, expected);
    assert_eq!(identity.publisher_name(), "token:42");

    for scope in [
        json!(null),
        json!("notifications:publisher"),
        json!("x,notifications:publish"),
        json!(["notifications:publish"]),
    ] {
        let identity = verifier(&[])
            .verify(&token(json!({ "scope": scope })))
            .unwrap();
        assert!(!identity.publisher, "{scope}");
        assert_eq!(identity.lifetime.issued_at, None);
    }
}

#[test]
fn each_key_believes_its_own_algorithm_and_no_other() {
    let keys = [
        (
            RS256,
            EncodingKey::from_rsa_pem as fn(&[u8]) -> _,
            Algorithm::RS256,
        ),
        (ES256, EncodingKey::from_ec_pem, Algorithm::ES256),
        (EDDSA, EncodingKey::from_ed_pem, Algorithm::EdDSA),
    ];
    let claims = json!({"sub": 42, "exp": now() + 600}).to_string();
    let mut tokens = vec![(Algorithm::HS256, hs256(HEADER, &claims))];
    for ((private, _), encoding, algorithm) in keys {
        let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
        tokens.push((
            algorithm,
            signed(&header, &claims, &encoding(private).unwrap(), algorithm),
        ));
    }
    let verifiers =
        keys.map(|((_, public), _, algorithm)| (algorithm, with_public_key(public).unwrap()));
    for (key, verifier) in [(Algorithm::HS256, verifier(&[]))]
        .into_iter()
        .chain(verifiers)
    {
        for (algorithm, token) in &tokens {
            let expected = if key == *algorithm {
                ""
            } else {
                "token_invalid"
            };
            assert_eq!(
                code(&verifier.verify(token)),
                expected,
                "{algorithm:?} for a key of {key:?}"
            );
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let claims = json!({"sub": "42", "exp": now() + 600}).to_string();
    for (_, public) in [RS256, ES256, EDDSA] {
        let token = signed(
            HEADER,
            &claims,
            &EncodingKey::from_secret(public),
            Algorithm::HS256,
        );
        assert_eq!(
            code(&with_public_key(public).unwrap().verify(&token)),
            "token_invalid"
        );
    }
}

fn assert_invalid(cases: &[(&str, String)]) {
    let verifiers = [verifier(&[]), with_public_key(ES256.1).unwrap()];
    for (what, token) in cases {
        for verifier in &verifiers {
            assert_eq!(code(&verifier.verify(token)), "token_invalid", "{what}");
        }
    }
}

#[test]
fn what_is_not_a_token_is_refused() {
    let good = token(json!({}));
    assert_invalid(&[
        ("one part", "abc".to_owned()),
        ("null", "null".to_owned()),
        ("two parts", good.rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", format!("{good}.x")),
        ("five parts", "a.b.c.d.e".to_owned()),
        ("padding", format!("{good}=")),
        ("spaces", format!(" {good}")),
        ("a newline", format!("{good}\n")),
        ("claims of an array", hs256(HEADER, "[]")),
        ("claims of text", hs256(HEADER, "\"42\"")),
        ("claims that are not JSON", hs256(HEADER, "{")),
        ("a header of an array", hs256("[]", "{}")),
        (
            "too long",
            token(json!({"padding": "x".repeat(MAX_TOKEN_BYTES)})),
        ),
    ]);
    assert_eq!(verifier(&[]).verify(""), Err(Refusal::Missing));
    let long = token(json!({"padding": "x".repeat(8_000)}));
    assert_eq!(code(&verifier(&[]).verify(&long)), "");
}

#[test]
fn a_token_that_the_key_did_not_sign_is_refused() {
    let claims = json!({"sub": "42", "exp": now() + 600}).to_string();
    let good = hs256(HEADER, &claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
    let alg = |alg: &str| format!(r#"{{"alg":"{alg}"}}"#);
    let unsigned = |name: &str| format!("{}.{}.", base64(alg(name)), base64(&claims));
    let zeros = format!(
        "{}.{}.{}",
        base64(alg("ES256")),
        base64(&claims),
        base64([0; 64])
    );
    let other = EncodingKey::from_secret(&[7; 32]);
    assert_invalid(&[
        ("no signature", format!("{message}.")),
        (
            "a bit flipped",
            format!("{message}.{flipped}{}", &signature[1..]),
        ),
        (
            "another key",
            signed(HEADER, &claims, &other, Algorithm::HS256),
        ),
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg nOnE", unsigned("nOnE")),
        ("no alg", hs256("{}", &claims)),
        ("r and s of zero", zeros),
    ]);
}

#[test]
fn a_header_names_no_key_and_no_extension() {
    let claims = json!({"sub": "42", "exp": now() + 600}).to_string();
    for (members, expected) in [
        (r#""kid":"../../etc/passwd""#, ""),
        (r#""kid":"' OR 1=1""#, ""),
        (r#""kid":null"#, ""),
        (r#""jku":"http://evil/","x5u":"http://evil/""#, ""),
        (r#""crit":[]"#, "token_invalid"),
        (r#""crit":["b64"],"b64":false"#, "token_invalid"),
        (r#""crit":null"#, "token_invalid"),
        (r#""crit":{"a":1}"#, "token_invalid"),
        (r#""alg":"none""#, "token_invalid"),
    ] {
        let header = format!(r#"{{"alg":"HS256",{members}}}"#);
        assert_eq!(
            code(&verifier(&[]).verify(&hs256(&header, &claims))),
            expected,
            "{members}"
        );
    }
}

#[test]
fn a_token_ends() {
    let now = now();
    assert_codes(
        &verifier(&[]),
        &[
            ("missing", json!({"exp": null}), "token_invalid"),
            ("past", json!({"exp": now - 3_600}), "token_expired"),
            (
                "just past the leeway",
                json!({"exp": now - LEEWAY_SECONDS - 2}),
                "token_expired",
            ),
            (
                "just within the leeway",
                json!({"exp": now - LEEWAY_SECONDS + 5}),
                "",
            ),
            ("a string", json!({"exp": "9999999999"}), "token_invalid"),
            ("a float", json!({"exp": (now + 600) as f64 + 0.5}), ""),
            ("negative", json!({"exp": -1}), "token_invalid"),
            ("an array", json!({"exp": [now + 600]}), "token_invalid"),
            ("zero", json!({"exp": 0}), "token_expired"),
            ("nbf to come", json!({"nbf": now + 600}), "token_invalid"),
            ("nbf within the leeway", json!({"nbf": now + 10}), ""),
            ("nbf of text", json!({"nbf": "0"}), "token_invalid"),
            ("iat to come", json!({"iat": now + 600}), "token_invalid"),
            ("iat within the leeway", json!({"iat": now + 10}), ""),
            ("iat of text", json!({"iat": "0"}), "token_invalid"),
        ],
    );
    let beyond = hs256(HEADER, r#"{"sub":"42","exp":18446744073709551616}"#);
    assert_eq!(code(&verifier(&[]).verify(&beyond)), "token_invalid");
    let last = hs256(HEADER, r#"{"sub":"42","exp":18446744073709551615}"#);
    assert_eq!(
        verifier(&[]).verify(&last).unwrap().lifetime.expires_at,
        LATEST_EXPIRY
    );
}

#[test]
fn a_token_lives_no_longer_than_is_set() {
    let now = now();
    let cases = [
        ("an hour", json!({"iat": now, "exp": now + 3_600}), ""),
        (
            "longer",
            json!({"iat": now, "exp": now + 3_601}),
            "token_invalid",
        ),
        (
            "without iat",
            json!({"iat": null, "exp": now + 60}),
            "token_invalid",
        ),
        (
            "nearly over",
            json!({"iat": now - 7_200, "exp": now + 60}),
            "token_invalid",
        ),
        (
            "ended before it began",
            json!({"iat": now + 10, "exp": now}),
            "",
        ),
    ];
    assert_codes(
        &verifier(&["--token-max-lifetime-seconds=3600"]),
        &cases.clone(),
    );
    let any = cases.map(|(name, claims, _)| (name, claims, ""));
    assert_codes(&verifier(&[]), &any);

    let token = json!({"sub": "42", "iat": now, "exp": now + 7_200}).to_string();
    let refusal = verifier(&["--token-max-lifetime-seconds=3600"]).verify(&hs256(HEADER, &token));
    let text = refusal.unwrap_err().to_string();
    assert!(
        text.contains("BELLHOP_TOKEN_MAX_LIFETIME_SECONDS"),
        "{text}"
    );
}

#[test]
fn issuer_and_audience_are_checked_when_they_are_configured() {
    let verifier_of_both = verifier(&["--jwt-issuer=https://id.example", "--jwt-audience=push"]);
    let good = json!({"iss": "https://id.example", "aud": "push"});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    assert_codes(
        &verifier_of_both,
        &[
            ("both", good.clone(), ""),
            (
                "one of several audiences",
                with("aud", json!(["other", "push"])),
                "",
            ),
            ("no audience", with("aud", json!(null)), "token_invalid"),
            (
                "another audience",
                with("aud", json!("other")),
                "token_invalid",
            ),
            (
                "other audiences",
                with("aud", json!(["other"])),
                "token_invalid",
            ),
            ("no audiences", with("aud", json!([])), "token_invalid"),
            (
                "an audience of a number",
                with("aud", json!(7)),
                "token_invalid",
            ),
            ("no issuer", with("iss", json!(null)), "token_invalid"),
            (
                "another issuer",
                with("iss", json!("https://id.example/")),
                "token_invalid",
            ),
            (
                "issuers",
                with("iss", json!(["https://id.example"])),
                "token_invalid",
            ),
        ],
    );
    assert_codes(
        &verifier(&[]),
        &[("unasked for", json!({"iss": "x", "aud": ["y"]}), "")],
    );
}

#[test]
fn the_user_is_one_claim() {
    assert_codes(
        &verifier(&[]),
        &[
            ("an integer", json!({"sub": 42}), ""),
            ("the longest", json!({"sub": "x".repeat(128)}), ""),
            ("missing", json!({"sub": null}), "token_invalid"),
            ("empty", json!({"sub": ""}), "token_invalid"),
            ("a float", json!({"sub": 42.0}), "token_invalid"),
            ("too long", json!({"sub": "x".repeat(300)}), "token_invalid"),
            ("NUL", json!({"sub": "a\0"}), "token_invalid"),
            ("a pattern", json!({"sub": "*"}), "token_invalid"),
            ("an array", json!({"sub": ["42"]}), "token_invalid"),
            ("true", json!({"sub": true}), "token_invalid"),
        ],
    );
    let other = verifier(&["--jwt-user-claim=uid"]);
    assert_eq!(
        other
            .verify(&token(json!({"uid": 7})))
            .unwrap()
            .user
            .as_str(),
        "7"
    );
    assert_eq!(code(&other.verify(&token(json!({})))), "token_invalid");

    let exp = now() + 600;
    for claims in [
        format!(r#"{{"sub":"42","sub":"43","exp":{exp}}}"#),
        format!(r#"{{"sub":"42","exp":{exp},"exp":{exp}}}"#),
        format!(r#"{{"sub":"42","exp":{exp},"scope":"","\u0073cope":"notifications:publish"}}"#),
    ] {
        assert_eq!(
            code(&verifier(&[]).verify(&hs256(HEADER, &claims))),
            "token_invalid",
            "{claims}"
        );
    }
}

#[test]
fn what_we_sign_is_believed_by_the_same_settings() {
    let user = UserId::try_from("42").unwrap();
    let hour = Duration::from_secs(3_600);
    for arguments in [
        &[][..],
        &[
            "--jwt-issuer=me",
            "--jwt-audience=you",
            "--jwt-user-claim=uid",
        ],
    ] {
        let auth = settings(arguments);
        let sign = |scope, ttl| sign_hs256(&auth, &secret(), &user, scope, ttl).unwrap();
        let identity = verifier(arguments)
            .verify(&sign(Some(PUBLISH_SCOPE), hour))
            .unwrap();
        assert_eq!((identity.user.as_str(), identity.publisher), ("42", true));
        assert_eq!(
            identity.lifetime.expires_at - identity.lifetime.issued_at.unwrap(),
            3_600
        );
        assert!(
            !verifier(arguments)
                .verify(&sign(None, Duration::MAX))
                .unwrap()
                .publisher
        );
    }
}

#[test]
fn a_key_that_cannot_serve_is_refused_by_its_setting() {
    let refused = |result: Result<Verifier, AuthSetupError>| result.unwrap_err().to_string();
    let short = Secret::new("x".repeat(31));
    assert_eq!(
        refused(Verifier::new(&settings(&[]), Some(&short))),
        "JWT_SECRET needs 32 bytes or more: openssl rand -hex 32 makes one"
    );
    assert!(refused(Verifier::new(&settings(&[]), None)).starts_with("no key: set JWT_SECRET"));

    let absent = settings(&["--jwt-public-key-file=/nowhere/key.pem"]);
    assert!(refused(Verifier::new(&absent, None)).contains("/nowhere/key.pem cannot be read"));
    for (pem, reason) in [
        (RS256.0, "private key"),
        (ES256.0, "private key"),
        (b"-----BEGIN CERTIFICATE-----\n", "certificate"),
        (
            include_bytes!("test_keys/refused_rsa1024.public.pem"),
            "2048 bits",
        ),
        (
            include_bytes!("test_keys/refused_ec384.public.pem"),
            "P-256",
        ),
        (include_bytes!("test_keys/refused_k1.public.pem"), "P-256"),
        (b"", "not a PEM file"),
        (b"ssh-ed25519 AAAA", "not a PEM file"),
    ] {
        let message = refused(with_public_key(pem));
        assert!(
            message.starts_with("JWT_PUBLIC_KEY_FILE ") && message.contains(reason),
            "{message}"
        );
    }
}
