//! A week of live in virtual time: what publisher, base and nodes keep in memory of a log that
//! goes on and on.
//!
//! The product's manifest and relay engine at each of them, with content that is only counted. A
//! node follows, another is away for six hours of each day, and each day one joins that has
//! nothing yet.
//!
//! `LIVE_WEEK_CHUNK_MS=20 cargo test --release -p distributary-tests --test live_week -- --nocapture`
//! runs it with a chunk every 20 ms, which is 30 million of them and takes some minutes.

#[cfg(test)]
#[path = "live_week/memory.rs"]
mod memory;
#[cfg(test)]
#[path = "live_week/peer.rs"]
mod peer;
#[cfg(test)]
#[path = "live_week/publisher.rs"]
mod publisher;

#[cfg(test)]
mod week {
    use shared::id::PeerId;
    use shared::time::Time;

    use crate::memory::held_by;
    use crate::peer::{Content, Peer};
    use crate::publisher::Publisher;

    /// 2.5 Mbit/s, whatever the chunks.
    const BYTES_PER_MS: u64 = 312;
    /// A chunk of as many bytes as it may have: 64 KiB every 210 ms.
    const CHUNK_MS: u64 = 210;
    const HOUR_MS: u64 = 3_600_000;
    const DAYS: u64 = 7;
    /// What a role may grow by, in bytes an hour, with a chunk as often as there can be one: every
    /// 20 ms. With fewer it is less in proportion.
    const SLOPE_MAX: f64 = 1e6;
    const CHUNK_MS_MIN: u64 = 20;

    struct World {
        now_ms: u64,
        publisher: Publisher,
        base: Peer,
        /// One follows, one comes and goes, and the last one has just joined.
        nodes: Vec<Peer>,
        content: Content,
    }

    impl World {
        fn new() -> Self {
            let mut content = Content::default();
            let publisher = Publisher::new(&mut content);
            let base = Peer::new(PeerId::Base);
            let mut world = Self { now_ms: 0, publisher, base, nodes: Vec::new(), content };
            world.base.connect(&mut world.publisher.peer);
            for name in ["follows", "comes-and-goes"] {
                world.join(name);
            }
            world
        }

        fn join(&mut self, name: &str) {
            let mut node = Peer::new(PeerId::Node(name.parse().unwrap()));
            node.connect(&mut self.base);
            self.nodes.push(node);
        }

        fn chunk(&mut self, chunk_ms: u64) {
            self.now_ms += chunk_ms;
            let now = Time::from_micros(self.now_ms * 1_000);
            let len = u32::try_from(chunk_ms * BYTES_PER_MS).unwrap();
            self.publisher.chunk(now, len, &mut self.content);
            self.pass_on(now);
        }

        /// Everything that can be sent is, and becomes durable.
        fn pass_on(&mut self, now: Time) {
            let source = &mut self.publisher.peer;
            while self.base.take_from(now, source, &self.content) {}
            self.base.flush(Some(source));
            if let Some(recut) = self.base.void.take() {
                self.content.void(&recut);
            }
            for node in &mut self.nodes {
                // What was flushed gives credit for more.
                while node.take_from(now, &mut self.base, &self.content) {}
                node.flush(Some(&mut self.base));
            }
        }

        /// What each keeps, in bytes.
        fn memory(&self) -> [usize; 4] {
            let peers = [&self.publisher.peer, &self.base, &self.nodes[0], &self.nodes[1]];
            peers.map(held_by)
        }
    }

    /// The growth of a series of hourly values, by least squares.
    fn slope(values: &[f64]) -> f64 {
        let count = values.len() as f64;
        let mean_x = (count - 1.0) / 2.0;
        let mean_y = values.iter().sum::<f64>() / count;
        let (mut above, mut below) = (0.0, 0.0);
        for (x, y) in values.iter().enumerate() {
            above += (x as f64 - mean_x) * (y - mean_y);
            below += (x as f64 - mean_x).powi(2);
        }
        above / below
    }

    #[test]
    fn seven_days_of_live_keep_a_bounded_index() {
        let chunk_ms = std::env::var("LIVE_WEEK_CHUNK_MS").ok().and_then(|text| text.parse().ok());
        let chunk_ms = chunk_ms.unwrap_or(CHUNK_MS);
        let mut world = World::new();
        let mut series: Vec<[f64; 4]> = Vec::new();
        for hour in 0..DAYS * 24 {
            match hour % 24 {
                6 => world.nodes[1].disconnect(&mut world.base),
                12 => world.nodes[1].connect(&mut world.base),
                18 => {
                    world.nodes.truncate(2);
                    world.join(&format!("day-{}", hour / 24));
                }
                _ => {}
            }
            while world.now_ms < (hour + 1) * HOUR_MS {
                world.chunk(chunk_ms);
            }
            series.push(world.memory().map(|bytes| bytes as f64));
        }
        world.publisher.end(&mut world.content);
        let now = Time::from_micros(world.now_ms * 1_000);
        while !world.nodes.iter().all(|node| node.relay.is_whole()) {
            world.pass_on(now);
        }
        for (who, name) in
            ["publisher", "base", "node", "node that comes and goes"].iter().enumerate()
        {
            let values: Vec<f64> = series[24..].iter().map(|hourly| hourly[who]).collect();
            let slope = slope(&values);
            println!(
                "{name}: {:.2} MB after a day, {:.2} MB after {DAYS}, {:.3} MB/h",
                values[0] / 1e6,
                values[values.len() - 1] / 1e6,
                slope / 1e6
            );
            let most = SLOPE_MAX * CHUNK_MS_MIN as f64 / chunk_ms as f64;
            assert!(slope < most, "{name} grows by {slope} bytes an hour");
        }
        for node in &world.nodes {
            assert!(node.relay.is_whole(), "{:?} lacks something", node.id);
            assert_eq!(node.relay.durable_bytes(), world.publisher.len(), "{:?}", node.id);
        }
        // Who follows gets each byte once.
        assert_eq!(world.nodes[0].received, world.publisher.len());
    }
}
