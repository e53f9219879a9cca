use std::time::Duration;

use super::{Link, LinkSpec, LinkSpecError, SplitMix, Verdict};

fn spec(text: &str) -> LinkSpec {
    text.parse().unwrap()
}

fn link(text: &str) -> Link {
    Link::new(spec(text), 7, 1, 2)
}

fn arrival(verdict: Verdict) -> Duration {
    match verdict {
        Verdict::Deliver(arrival) => arrival.at,
        other => panic!("not delivered: {other:?}"),
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Offers `count` packets 1 ms apart and returns the verdicts.
fn offer_many(link: &mut Link, count: u64) -> Vec<Verdict> {
    (0..count).map(|i| link.offer(ms(i), 1500)).collect()
}

#[test]
fn splitmix_gives_the_published_numbers() {
    let mut rng = SplitMix(1_234_567);
    let got: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
    assert_eq!(
        got,
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
    );
}

#[test]
fn two_links_are_one() {
    let joined = |one: &str, other: &str| spec(one).then(&spec(other)).to_string();
    assert_eq!(joined("40ms 5ms-jitter 1%-loss", "10ms 2%-loss"), "50ms 5ms-jitter 2.98%-loss");
    assert_eq!(joined("0ms 5Mbit 64KiB-queue", "1ms 20Mbit 9B-queue"), "1ms 5Mbit 64KiB-queue");
    assert_eq!(joined("0ms", "1ms 20Mbit 9B-queue down"), "1ms 20Mbit 9B-queue down");
    let bursts = "1ms ge(0.1%,20%)-loss";
    assert_eq!(joined(bursts, bursts), "2ms ge(0.1999%,20%)-loss");
    assert_eq!(joined("1ms 1%-loss", bursts), joined(bursts, "1ms 1%-loss"));
}

#[test]
fn display_parses_back() {
    for text in [
        "0ms",
        "40ms",
        "200us",
        "1500ms 3ns-jitter",
        "40ms 5ms-jitter 1%-loss 50Mbit 256KiB-queue",
        "40ms 5ms-jitter jitter-reorders ge(0.1%,20%)-loss 0.1%-dup 1%-reorder 2ms-late \
         0.01%-corrupt 100Mbit 100ms-queue down",
        "0ms ge(0.1%,20%,90%,0.0000001%)-loss",
        "1ms 2500Kbit 7B-queue",
        "1ms 0.5%-loss down",
    ] {
        assert_eq!(spec(text).to_string(), text, "written as it was read");
        assert_eq!(spec(&spec(text).to_string()), spec(text));
    }
    assert_eq!(spec("0.2ms"), spec("200us"));
    assert_eq!(spec("1.5Mbit 0.5MiB-queue 2s"), spec("2000ms 1500Kbit 512KiB-queue"));
    assert_eq!(spec("1ms ge(1%,25%,100%)-loss"), spec("1ms ge(1%,25%)-loss"));
    assert_eq!(LinkSpec::default(), spec("0ms"));
}

#[test]
fn unknown_words_are_named_with_the_known_ones() {
    for word in ["fast", "5ms-jiter", "40sec", "loss-1%", "DOWN", "50mbps", "40", "-", "40ms-"] {
        let error = format!("40s {word}").parse::<LinkSpec>().unwrap_err();
        assert_eq!(error, LinkSpecError::UnknownWord { word: word.to_owned() }, "{word}");
        let text = error.to_string();
        assert!(text.contains(&format!("`{word}`")) && text.contains("256KiB-queue"), "{text}");
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    for word in [
        "101%-loss",
        "-1%-loss",
        "1-loss",
        "1.%-loss",
        ".5%-loss",
        "1.2.3%-loss",
        "%-loss",
        "0.00000001%-loss",
        "ge(1%)-loss",
        "ge(1%,1%,1%,1%,1%)-loss",
        "ge()-loss",
        "0bit",
        "2000Gbit",
        "0.1bit",
        "61s",
        "0.1ns",
        "2GiB-queue",
        "0.5B-queue",
        "5-jitter",
        "99999999999999999999ms",
        "5%-late",
        "1e3ms-late",
    ] {
        let error = word.parse::<LinkSpec>().unwrap_err();
        assert!(
            matches!(&error, LinkSpecError::BadValue { word: named, .. } if named == word),
            "{word}: {error}"
        );
    }
    assert_eq!("".parse::<LinkSpec>(), Err(LinkSpecError::Empty));
    assert!(matches!("1ms 2ms".parse::<LinkSpec>(), Err(LinkSpecError::Repeated { .. })));
    assert!(matches!("1%-loss 1%-loss".parse::<LinkSpec>(), Err(LinkSpecError::Repeated { .. })));
    for text in [
        "1ms 2ms-jitter",
        "1ms jitter-reorders",
        "1ms 1KiB-queue",
        "1ms 1%-reorder",
        "1ms 2ms-late",
    ] {
        let result = text.parse::<LinkSpec>();
        assert!(matches!(result, Err(LinkSpecError::Incomplete { .. })), "{text}: {result:?}");
    }
}

#[test]
fn delay_alone_shifts_every_packet() {
    let mut link = link("40ms");
    assert_eq!(arrival(link.offer(ms(3), 1500)), ms(43));
    assert_eq!(arrival(link.offer(ms(3), 1500)), ms(43));
}

#[test]
fn rate_spaces_packets_by_their_time_on_the_wire() {
    // 1250 bytes at 10 Mbit/s take 1 ms.
    let mut link = link("10ms 10Mbit 100KiB-queue");
    let got: Vec<_> = (0..3).map(|_| arrival(link.offer(ms(5), 1250))).collect();
    assert_eq!(got, [ms(16), ms(17), ms(18)]);
    // 2.5 ms later one of the three is on the wire still; half of it has left.
    assert_eq!(arrival(link.offer(Duration::from_micros(7_500), 1250)), ms(19));
    // An idle link starts at once.
    assert_eq!(arrival(link.offer(ms(100), 2500)), ms(112));
}

#[test]
fn queue_takes_what_fits_and_no_more() {
    let mut link = link("10ms 10Mbit 5000B-queue");
    let verdicts: Vec<_> = (0..5).map(|_| link.offer(ms(0), 1250)).collect();
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::QueueFull).count(), 1);
    assert_eq!(verdicts[4], Verdict::QueueFull, "the tail is dropped");
    // After 1 ms there is room for one packet, not for two.
    assert_eq!(arrival(link.offer(ms(1), 1250)), ms(15));
    assert_eq!(link.offer(ms(1), 1250), Verdict::QueueFull);
    assert_eq!(link.offer(ms(1), 1), Verdict::QueueFull);
    assert_eq!(link.counters().queue_dropped, 3);
    // A queue smaller than a packet still passes packets that find the link idle.
    let mut narrow = self::link("10ms 10Mbit 100B-queue");
    assert_eq!(arrival(narrow.offer(ms(0), 1250)), ms(11));
    assert_eq!(narrow.offer(ms(0), 1250), Verdict::QueueFull);
    assert_eq!(arrival(narrow.offer(ms(1), 1250)), ms(12));
}

#[test]
fn queue_in_time_follows_the_rate() {
    assert_eq!(spec("8Mbit 100ms-queue").queue_bytes(), 100_000);
    assert_eq!(spec("8Mbit").queue_bytes(), 100_000);
    assert_eq!(spec("8Mbit 3KiB-queue").queue_bytes(), 3072);
    assert_eq!(spec("1ms").queue_bytes(), u64::MAX);
}

#[test]
fn saturated_link_carries_its_rate() {
    let mut link = link("10ms 50Mbit 64KiB-queue");
    let mut delivered_by_1s = 0;
    // 1500 bytes every 120 us are 100 Mbit/s: twice what the link takes.
    for i in 0..10_000_u64 {
        if let Verdict::Deliver(arrival) = link.offer(Duration::from_micros(i * 120), 1500)
            && arrival.at <= Duration::from_millis(1010)
        {
            delivered_by_1s += 1500;
        }
    }
    let megabits = f64::from(delivered_by_1s) * 8.0 / 1e6;
    assert!((49.9..=50.0).contains(&megabits), "{megabits} Mbit in one second");
}

#[test]
fn random_loss_is_what_was_asked() {
    for (text, want) in [("1ms 1%-loss", 0.01), ("1ms 15%-loss", 0.15), ("1ms 0.1%-loss", 0.001)] {
        let mut link = link(text);
        let lost = offer_many(&mut link, 200_000).iter().filter(|v| **v == Verdict::Lost).count();
        assert_eq!(link.counters().lost, lost as u64);
        let share = lost as f64 / 200_000.0;
        // Five standard deviations of a binomial share.
        let tolerance = 5.0 * (want * (1.0 - want) / 200_000.0_f64).sqrt();
        assert!((share - want).abs() < tolerance, "{text}: {share}");
    }
    let verdicts = offer_many(&mut link("1ms 100%-loss"), 100);
    assert!(verdicts.iter().all(|v| *v == Verdict::Lost));
}

#[test]
fn burst_loss_has_its_mean_and_its_burst_length() {
    let mut link = link("1ms ge(1%,25%)-loss");
    let lost: Vec<bool> =
        offer_many(&mut link, 400_000).iter().map(|v| *v == Verdict::Lost).collect();
    let total = lost.iter().filter(|l| **l).count() as f64;
    let bursts = lost.windows(2).filter(|w| !w[0] && w[1]).count() as f64;
    // Mean loss p / (p + r) = 1 / 26, mean burst 1 / r = 4.
    assert!((total / 400_000.0 - 1.0 / 26.0).abs() < 0.002, "{}", total / 400_000.0);
    assert!((total / bursts - 4.0).abs() < 0.2, "{}", total / bursts);
}

#[test]
fn lost_packets_take_no_capacity() {
    let mut lossy = link("10ms 50%-loss 10Mbit 1GiB-queue");
    let mut delivered = 0;
    for _ in 0..1000 {
        if let Verdict::Deliver(arrival) = lossy.offer(ms(0), 1250) {
            delivered += 1;
            assert_eq!(arrival.at, ms(10 + delivered));
        }
    }
    assert!((400..600).contains(&delivered));
}

#[test]
fn jitter_keeps_the_order_unless_asked() {
    let arrivals = |text: &str| -> Vec<Duration> {
        offer_many(&mut link(text), 10_000).into_iter().map(arrival).collect()
    };
    let in_order = arrivals("40ms 5ms-jitter");
    assert!(in_order.is_sorted());
    let spread = arrivals("40ms 5ms-jitter jitter-reorders");
    assert!(!spread.is_sorted());
    for got in [in_order, spread] {
        let delays: Vec<_> = got.iter().zip(0..).map(|(at, i)| *at - ms(i)).collect();
        assert!(delays.iter().all(|d| (ms(35)..=ms(45)).contains(d)));
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*least < ms(37) && *most > ms(44), "{least:?} to {most:?}");
    }
}

#[test]
fn held_back_packets_are_overtaken() {
    let mut link = link("40ms 1%-reorder 2500us-late");
    let arrivals: Vec<_> = offer_many(&mut link, 10_000).into_iter().map(arrival).collect();
    let late = arrivals.iter().zip(0..).filter(|(at, i)| **at == ms(i + 40) + ms(2) + ms(1) / 2);
    let late = late.count();
    assert_eq!(late as u64, link.counters().held_back);
    assert!((60..140).contains(&late), "{late}");
    assert!(!arrivals.is_sorted());
}

#[test]
fn copies_and_flipped_bits_are_counted() {
    let mut link = link("40ms 10%-dup 20%-corrupt");
    let mut twice = 0;
    let mut flipped = 0;
    for verdict in offer_many(&mut link, 10_000) {
        let Verdict::Deliver(arrival) = verdict else { panic!("{verdict:?}") };
        twice += u64::from(arrival.twice);
        flipped += u64::from(arrival.flipped_bit.is_some());
        assert!(arrival.flipped_bit.is_none_or(|bit| bit < 1500 * 8));
    }
    assert!((900..1100).contains(&twice) && (1850..2150).contains(&flipped), "{twice} {flipped}");
    assert_eq!((link.counters().duplicated, link.counters().corrupted), (twice, flipped));
}

#[test]
fn link_goes_down_and_comes_back() {
    let mut link = link("40ms");
    let before = link.offer(ms(0), 100);
    link.set_spec(spec("40ms down"));
    assert_eq!(link.offer(ms(1), 100), Verdict::Down);
    link.set_spec(spec("40ms"));
    assert_eq!((arrival(before), arrival(link.offer(ms(2), 100))), (ms(40), ms(42)));
    assert_eq!(link.counters().down_dropped, 1);
}

#[test]
fn counters_add_up() {
    let mut link = link("10ms 5%-loss 5Mbit 10KiB-queue");
    offer_many(&mut link, 5_000);
    link.set_spec(spec("10ms down"));
    offer_many(&mut link, 10);
    let c = link.counters();
    assert_eq!(c.offered, 5_010);
    assert_eq!(c.offered_bytes, 5_010 * 1500);
    assert_eq!(c.delivered_bytes, c.delivered * 1500);
    assert_eq!(c.offered, c.delivered + c.lost + c.queue_dropped + c.down_dropped);
    assert!(c.lost > 0 && c.queue_dropped > 0 && c.down_dropped == 10);
}

#[test]
fn randomness_depends_on_seed_and_ends_only() {
    let verdicts = |seed, src, dst| {
        let spec = spec("40ms 5ms-jitter 10%-loss 50Mbit 256KiB-queue");
        offer_many(&mut Link::new(spec, seed, src, dst), 1_000)
    };
    assert_eq!(verdicts(7, 1, 2), verdicts(7, 1, 2));
    for other in [verdicts(8, 1, 2), verdicts(7, 2, 1), verdicts(7, 1, 3)] {
        assert_ne!(other, verdicts(7, 1, 2));
    }
    // Another word leaves the losses where they were.
    let lost = |text: &str| -> Vec<bool> {
        offer_many(&mut link(text), 1_000).iter().map(|v| *v == Verdict::Lost).collect()
    };
    assert_eq!(lost("40ms 10%-loss"), lost("80ms 9ms-jitter 10%-loss 1%-dup 50Mbit"));
}
