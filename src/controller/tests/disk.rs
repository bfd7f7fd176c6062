//! The files of a broker without a disk.

use std::collections::BTreeMap;

use super::rig::*;
use crate::base::ids::Uuid;
use crate::controller::Controller;
use crate::controller::image::Image;
use crate::controller::journal::{Point, Writer};
use crate::controller::metastore::{Files, Recovered, Row, begin, recover};

/// The files of a broker, as bytes: what the caller's operations would have made durable.
#[derive(Clone)]
pub struct Disk {
    pub files: BTreeMap<u64, Files>,
    pub writer: Writer,
}

impl Disk {
    pub fn format() -> (Disk, Controller) {
        let mut disk = Disk { files: BTreeMap::new(), writer: Writer::new(0, Point::default()) };
        let image = image(&[]);
        disk.begin(&image, 1, Point::default());
        (disk, Controller::new(image))
    }

    pub fn begin(&mut self, image: &Image, number: u64, point: Point) {
        let generation = begin(image, CLUSTER, number, point);
        let (snapshot, journal) = (Some(generation.snapshot), Some(generation.journal_header));
        self.files.insert(number, Files { generation: number, snapshot, journal });
        self.writer = generation.writer;
    }

    /// Begins the next generation as a start or a roll does.
    pub fn roll(&mut self, image: &Image) {
        let (number, point) = (self.files.keys().last().unwrap() + 1, self.writer.point());
        self.begin(image, number, point);
    }

    /// Writes what the controller decided; the bytes of the write.
    pub fn write(&mut self, controller: &mut Controller) -> Vec<u8> {
        let batch = controller.take_batch().unwrap();
        let write = self.writer.encode(&batch.records);
        let journal = self.journal(self.writer.generation());
        journal.truncate(write.position as usize);
        journal.resize(write.position as usize, 0);
        journal.extend_from_slice(&write.bytes);
        let _ = controller.durable(batch.through);
        write.bytes
    }

    pub fn create(&mut self, controller: &mut Controller, name: &str) {
        let _ = controller
            .create_topics(&[topic(name, 2, 1)], false, || Uuid::from_random([name.len() as u8; 16]));
        self.write(controller);
    }

    pub fn journal(&mut self, number: u64) -> &mut Vec<u8> {
        self.files.get_mut(&number).unwrap().journal.as_mut().unwrap()
    }

    pub fn snapshot(&mut self, number: u64) -> &mut Vec<u8> {
        self.files.get_mut(&number).unwrap().snapshot.as_mut().unwrap()
    }

    pub fn recover(&self) -> Result<Recovered, crate::base::error::Fatal> {
        recover(&self.files.values().cloned().collect::<Vec<_>>(), CLUSTER, "/d")
    }

    /// The names of the topics that are recovered, and the rows that decided it.
    pub fn topics(&self) -> (String, Vec<Row>) {
        let recovered = self.recover().unwrap();
        let image = load(&recovered);
        let names: Vec<&str> = image.topics().map(|topic| topic.name.as_str()).collect();
        (names.join(" "), recovered.rows)
    }

    pub fn refusal(&self) -> String {
        let fatal = self.recover().unwrap_err();
        assert!(!fatal.tries.is_empty());
        format!("{}: {}", fatal.code, fatal.summary)
    }
}

pub fn load(recovered: &Recovered) -> Image {
    let mut image = image(&[]);
    image.load(recovered.records.clone()).unwrap();
    image
}

/// Generation 1 with topics a and bb, generation 2 with ccc and dddd.
pub fn two_generations() -> Disk {
    let (mut disk, mut controller) = Disk::format();
    disk.create(&mut controller, "a");
    disk.create(&mut controller, "bb");
    disk.roll(controller.staged());
    disk.create(&mut controller, "ccc");
    disk.create(&mut controller, "dddd");
    disk
}
