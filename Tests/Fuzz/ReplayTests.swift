import Foundation
import SystemPackage
import TestSupport
import Testing

/// What fuzzing is begun from and what it found, given once more to each reader.
@Suite struct ReplayTests {
  @Test(arguments: FuzzTarget.all) func noInputTraps(target: FuzzTarget) throws {
    let folder = try TemporaryFolder()
    let known = Fixtures.path("fuzz").appending(target.name)
    let names = try FileManager.default.contentsOfDirectory(atPath: known.string).sorted()
    let run = try FuzzRun(target, in: folder.appending("work"))
    var refused = 0
    for name in names {
      let input = try [UInt8](Data(contentsOf: URL(fileURLWithPath: known.appending(name).string)))
      if run(input) != nil { refused += 1 }
    }
    // A target that refuses its own seeds does not reach what it is to try.
    #expect(refused < names.count, "\(names.count) inputs")
  }

  @Test func everyFolderOfInputsHasItsTarget() throws {
    let folders = try FileManager.default.contentsOfDirectory(atPath: Fixtures.path("fuzz").string)
    #expect(Set(folders.filter { !$0.hasPrefix(".") }) == Set(FuzzTarget.all.map(\.name)))
  }
}
