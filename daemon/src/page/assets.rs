//! The files of the page, inside the binary. HTML files have `{{key}}` where a text of [`words`] belongs; the scripts
//! get the same texts as `/words.js`. Nothing is fetched from anywhere else.

use std::fmt::Write as _;

use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use fieldspool_drivers::Cause;
use serde_json::json;

use crate::page::words;

/// The page.
pub(super) const INDEX: &str = include_str!("assets/index.html");

/// Where an invitation is handed in.
pub(super) const INVITE: &str = include_str!("assets/invite.html");

/// What somebody without an invitation sees.
pub(super) const DENIED: &str = include_str!("assets/denied.html");

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Path, content type, content.
pub(super) const FILES: &[(&str, &str, &[u8])] = &[
    ("/style.css", STYLE, include_bytes!("assets/style.css")),
    ("/app.js", SCRIPT, include_bytes!("assets/app.js")),
    ("/stream.js", SCRIPT, include_bytes!("assets/stream.js")),
    ("/devices.js", SCRIPT, include_bytes!("assets/devices.js")),
    ("/facts.js", SCRIPT, include_bytes!("assets/facts.js")),
    ("/format.js", SCRIPT, include_bytes!("assets/format.js")),
    ("/invite.js", SCRIPT, include_bytes!("assets/invite.js")),
    ("/icon.svg", IMAGE, include_bytes!("assets/icon.svg")),
];

/// A file by its path.
pub(super) fn file(path: &str) -> Option<Response> {
    if path == "/words.js" {
        return Some(answer(SCRIPT, words_js()));
    }
    let (_, kind, content) = FILES.iter().find(|(known, ..)| *known == path)?;
    Some(answer(kind, *content))
}

/// An HTML file with its texts.
pub(super) fn html(template: &str) -> Response {
    answer("text/html; charset=utf-8", filled(template))
}

fn answer(kind: &'static str, content: impl IntoResponse) -> Response {
    let mut response = content.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Puts the texts where their keys are.
fn filled(template: &str) -> String {
    let mut page = String::with_capacity(template.len() + 1024);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (key, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(before);
        escape(&mut page, words::label(key));
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escape(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            c => page.push(c),
        }
    }
}

/// The texts as a script: by key, and the causes of missing values by their name in the API.
fn words_js() -> String {
    let labels: serde_json::Map<String, serde_json::Value> =
        words::LABELS.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
    let plain = (0..=u16::MAX).step_by(256).filter_map(Cause::from_code);
    let causes: serde_json::Map<String, serde_json::Value> = plain
        .filter(|cause| !matches!(cause, Cause::Exception(_)))
        .chain((0..=11).map(Cause::Exception))
        .map(|cause| (cause.to_string(), json!(words::cause(cause))))
        .collect();
    let mut script = String::from("// Made from the words of the daemon.\n");
    // Writing into a String cannot fail.
    let _ = writeln!(script, "export const w = {};", json!(labels));
    let _ = writeln!(script, "export const causes = {};", json!(causes));
    script
}
