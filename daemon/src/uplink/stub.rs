//! For tests: a broker of MQTT 5 over plain TCP that does what a test tells it, right or wrong.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A PUBLISH, as the broker sees it.
#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) id: u16,
}

/// Given all publishes of a connection so far: the bytes to send now.
type Answer = Box<dyn FnMut(&[Publish]) -> Vec<u8> + Send>;

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) connects: AtomicUsize,
    pub(super) pings: AtomicUsize,
}

pub(super) struct Stub {
    pub(super) port: u16,
    pub(super) seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// PUBACK with a reason code (MQTT 5 3.4).
pub(super) fn puback(id: u16, code: u8) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0x40, 3, high, low, code]
}

/// DISCONNECT with a reason code (MQTT 5 3.14).
pub(super) fn disconnect(code: u8) -> Vec<u8> {
    vec![0xe0, 2, code, 0]
}

impl Stub {
    /// Answers each CONNECT with these CONNACK properties, and each PUBLISH as `answer` says.
    pub(super) async fn start(properties: &'static [u8], answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let counted = seen.clone();
        let answer = Mutex::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.connects.fetch_add(1, Ordering::Relaxed);
                // One connection at a time: there is one client.
                let _ = serve(stream, properties, &answer, &counted).await;
            }
        });
        Self { port, seen, task }
    }
}

async fn serve(
    mut stream: TcpStream,
    properties: &[u8],
    answer: &Mutex<Answer>,
    seen: &Seen,
) -> std::io::Result<()> {
    let mut publishes = Vec::new();
    loop {
        let kind = stream.read_u8().await?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let reply = match kind >> 4 {
            1 => {
                let size = u8::try_from(properties.len()).unwrap();
                [&[0x20, size + 3, 0, 0, size], properties].concat()
            }
            3 => {
                let topic_length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, rest) = body[2..].split_at(topic_length);
                let topic = String::from_utf8(topic.to_vec()).unwrap();
                publishes.push(Publish { topic, id: u16::from_be_bytes([rest[0], rest[1]]) });
                (answer.lock().unwrap())(&publishes)
            }
            12 => {
                seen.pings.fetch_add(1, Ordering::Relaxed);
                vec![0xd0, 0]
            }
            14 => return Ok(()),
            _ => Vec::new(),
        };
        stream.write_all(&reply).await?;
        if reply.first() == Some(&0xe0) {
            return Ok(());
        }
    }
}
