//! An HTTP server with one object, which answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::StatusCode;

/// What one request gets.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The range asked for.
    Range,
    /// A refusal with this body.
    Refuse(u16, &'static str),
    /// A refusal that takes its time.
    Late(u16),
    /// 200 and the whole object.
    Whole,
    /// The range without an ETag, said to have been written then.
    Written(&'static str),
    /// The range, said to be of an object with this ETag.
    Etag(&'static str),
    /// The range, said to be of an object of this size.
    Size(usize),
    /// Another range.
    Elsewhere,
    /// A part of the range; then the connection breaks.
    Broken,
    /// A part of the range; then nothing.
    Stall,
    /// Another address.
    Redirect,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub range: String,
    pub if_match: String,
    pub if_unmodified_since: String,
    pub query: String,
}

#[derive(Default)]
struct Inner {
    object: Bytes,
    etag: String,
    answers: VecDeque<Answer>,
    always: Option<Answer>,
    asked: Vec<Asked>,
}

/// A running store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    address: String,
}

impl Store {
    /// A store with this object.
    pub async fn start(object: Vec<u8>, etag: &str) -> Self {
        let inner = Arc::new(Mutex::new(Inner {
            object: object.into(),
            etag: etag.to_owned(),
            ..Inner::default()
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { inner, address }
    }

    /// The object's URL with this signature in it.
    pub fn url(&self, signature: &str) -> String {
        format!("http://{}/bucket/key?sig={signature}", self.address)
    }

    /// The next requests get these answers, later ones what they ask for.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inner.lock().unwrap().answers.extend(answers);
    }

    /// All requests from now on get this answer.
    pub fn always(&self, answer: Answer) {
        self.inner.lock().unwrap().always = Some(answer);
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.lock().unwrap().asked.clone()
    }
}

async fn serve(State(inner): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let (answer, object, etag, range) = {
        let mut inner = inner.lock().unwrap();
        let header = |name: &str| match request.headers().get(name) {
            Some(value) => value.to_str().unwrap().to_owned(),
            None => String::new(),
        };
        let range = header("range");
        inner.asked.push(Asked {
            range: range.clone(),
            if_match: header("if-match"),
            if_unmodified_since: header("if-unmodified-since"),
            query: request.uri().query().unwrap_or_default().to_owned(),
        });
        let next = inner.answers.pop_front().or(inner.always.clone());
        (
            next.unwrap_or(Answer::Range),
            inner.object.clone(),
            inner.etag.clone(),
            range,
        )
    };
    let (first, last) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let piece = object.slice(first..=last);
    let partial = |total: usize, etag: &str| {
        Response::builder()
            .status(StatusCode::PARTIAL_CONTENT)
            .header("etag", etag)
            .header("content-length", piece.len())
            .header("content-range", format!("bytes {first}-{last}/{total}"))
    };
    let half = piece.slice(..piece.len() / 2);
    match answer {
        Answer::Range => partial(object.len(), &etag).body(Body::from(piece)),
        Answer::Refuse(code, body) => Response::builder().status(code).body(Body::from(body)),
        Answer::Late(code) => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Response::builder().status(code).body(Body::empty())
        }
        Answer::Whole => Response::builder().body(Body::from(object)),
        Answer::Written(time) => Response::builder()
            .status(StatusCode::PARTIAL_CONTENT)
            .header("last-modified", time)
            .header(
                "content-range",
                format!("bytes {first}-{last}/{}", object.len()),
            )
            .body(Body::from(piece)),
        Answer::Etag(other) => partial(object.len(), other).body(Body::from(piece)),
        Answer::Size(other) => partial(other, &etag).body(Body::from(piece)),
        Answer::Elsewhere => Response::builder()
            .status(StatusCode::PARTIAL_CONTENT)
            .header(
                "content-range",
                format!("bytes {}-{}/{}", first + 1, last + 1, object.len()),
            )
            .body(Body::from(piece)),
        Answer::Broken => {
            let broken = futures::future::ready(Err(std::io::Error::other("broken")));
            let pieces = stream::iter([Ok(half)]).chain(stream::once(broken));
            partial(object.len(), &etag).body(Body::from_stream(pieces))
        }
        Answer::Stall => {
            let silence = tokio::time::sleep(Duration::from_secs(600));
            let silence = async move {
                silence.await;
                Ok::<_, std::io::Error>(Bytes::new())
            };
            let pieces = stream::iter([Ok(half)]).chain(stream::once(silence));
            partial(object.len(), &etag).body(Body::from_stream(pieces))
        }
        Answer::Redirect => Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header("location", "http://127.0.0.1:1/elsewhere")
            .body(Body::empty()),
    }
    .unwrap()
}
