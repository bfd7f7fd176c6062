//! Files and directories.

use super::*;

pub fn a_written_block_reads_back(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(3, 7);
    rig.write(file, ALIGN as u64, data, WriteSync::Dsync);
    assert_eq!(rig.read(file, ALIGN as u64, 3 * ALIGN), pattern(3 * ALIGN, 7));
    assert_eq!(rig.read(file, 0, ALIGN), vec![0; ALIGN]);
    rig.ok(Op::CloseFile { file });
}
