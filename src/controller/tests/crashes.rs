//! Random commands, crashes and damage.

use super::disk::*;
use super::rig::*;
use crate::base::ids::Uuid;
use crate::controller::Controller;
use crate::controller::image::Image;
use crate::controller::journal::BLOCK;
use crate::controller::topics::{MorePartitions, TopicRef};

/// xorshift64*: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.iter_mut().for_each(|byte| *byte = self.below(256) as u8);
        Uuid::from_random(bytes)
    }
}

fn random_command(controller: &mut Controller, random: &mut Random) {
    let names: Vec<String> = (0..6).map(|i| format!("t{i}")).collect();
    let name = names[random.below(6) as usize].clone();
    match random.below(6) {
        0 | 1 => {
            let topic = topic(&name, 1 + random.below(5) as i32, 1);
            let id = random.uuid();
            let _ = controller.create_topics(&[topic], false, || id);
        }
        2 => {
            let _ = controller.delete_topics(&[TopicRef { name: Some(name), id: Uuid::ZERO }]);
        }
        3 => {
            let count = 1 + random.below(9) as i32;
            let _ = controller.create_partitions(&[MorePartitions { name, count, assignments: None }], false);
        }
        4 => {
            let value = random.below(100).to_string();
            let (kind, name, key) = match random.below(3) {
                0 => (4, String::new(), "log.retention.ms"),
                _ => (2, name, "retention.ms"),
            };
            let _ = alter(controller, kind, &name, &[(key, random.below(2) as i8, Some(&value))]);
        }
        _ => {
            let _ = controller.next_producer_id();
        }
    }
}

/// Two images are the same but for their revision.
fn same(a: &Image, b: &Image) -> bool {
    a.records() == b.records() && a.config == b.config
}

/// Random commands in random batches, a crash in the middle of a write, recovery, and on. `planted` counts a write as durable when it
/// is submitted: the bug that this must find. Returns the seed's failure.
fn fuzz(seed: u64, planted: bool) -> Result<(), String> {
    let random = &mut Random(seed * 2 + 1);
    let (mut disk, mut controller) = Disk::format();
    let mut durable = controller.staged().clone();
    for _life in 0..4 {
        for _ in 0..random.below(12) {
            (0..=random.below(3)).for_each(|_| random_command(&mut controller, random));
            if let Some(batch) = controller.take_batch() {
                let write = disk.writer.encode(&batch.records);
                disk.journal(disk.writer.generation()).extend_from_slice(&write.bytes);
                let published = controller.durable(batch.through).ok_or("nothing published")?;
                durable = published.as_ref().clone();
            }
            if random.below(10) == 0 {
                disk.roll(&durable.clone());
            }
        }
        // The crash: a last write of which any 512-byte sectors landed.
        random_command(&mut controller, random);
        let mut staged = durable.clone();
        if let Some(batch) = controller.take_batch() {
            let write = disk.writer.encode(&batch.records);
            staged = controller.staged().clone();
            let landed = random.below(3);
            let torn: Vec<u8> = write
                .bytes
                .chunks(512)
                .flat_map(|sector| match landed {
                    0 => sector.to_vec(),
                    1 => vec![0; sector.len()],
                    _ if random.below(2) == 0 => sector.to_vec(),
                    _ => vec![0; sector.len()],
                })
                .collect();
            disk.journal(disk.writer.generation()).extend_from_slice(&torn);
        }
        if planted {
            durable = staged.clone();
        }
        if random.below(4) == 0 && disk.files.len() > 1 {
            let newest = *disk.files.keys().last().unwrap();
            let at = random.below(disk.snapshot(newest).len() as u64 - BLOCK as u64 + 80) as usize;
            disk.snapshot(newest)[at] ^= 0x40;
        }
        let recovered = disk.recover().map_err(|fatal| fatal.to_string())?;
        let image = load(&recovered);
        if !same(&image, &durable) && !same(&image, &staged) {
            return Err(format!("seed {seed}: recovered neither the durable nor the staged state"));
        }
        if disk.recover() != Ok(recovered.clone()) {
            return Err(format!("seed {seed}: a second recovery differs"));
        }
        disk.files.retain(|number, _| !recovered.remove.contains(number));
        disk.begin(&image, recovered.next, recovered.point);
        durable = image.clone();
        controller = Controller::new(image);
    }
    Ok(())
}

#[test]
fn any_crash_leaves_the_last_durable_state() {
    for seed in 0..300 {
        fuzz(seed, false).unwrap();
    }
    assert!(
        (0..300).any(|seed| fuzz(seed, true).is_err()),
        "an ack before the write is durable must be found"
    );
}

/// Bytes that nobody wrote are refused or cut off, never a panic.
#[test]
fn damage_anywhere_is_survived() {
    let random = &mut Random(42);
    for _ in 0..500 {
        let mut disk = two_generations();
        for _ in 0..=random.below(3) {
            let number = 1 + random.below(2);
            let file = if random.below(2) == 0 { disk.journal(number) } else { disk.snapshot(number) };
            let at = random.below(file.len() as u64) as usize;
            match random.below(3) {
                0 => file[at] ^= 1 << random.below(8),
                1 => file.truncate(at),
                _ => file[at..].fill(0xff),
            }
            if file.is_empty() {
                file.push(0);
            }
        }
        if let Ok(recovered) = disk.recover() {
            let mut image = image(&[]);
            image.load(recovered.records).unwrap();
            assert!(
                image.topic("a").is_some(),
                "what lies before the newest transactions is never lost silently"
            );
        }
    }
}
