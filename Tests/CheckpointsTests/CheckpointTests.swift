import Checkpoints
import Foundation
import SystemPackage
import TestSupport
import Testing

@Suite struct CheckpointTests {
  @Test func aFolderAnIndexAndAFileOpen() throws {
    let model = Fixtures.path("tiny-llama")
    let folder = try Checkpoint(model)
    #expect(folder.files.count == 2)
    #expect(folder.configuration?["model_type"]?.string == "llama")
    let index = try Checkpoint(model.appending("model.safetensors.index.json"))
    #expect(index.tensors.map(\.name) == folder.tensors.map(\.name))
    let shard = try Checkpoint(model.appending("model-00001-of-00002.safetensors"))
    #expect(shard.tensors.map(\.name) == folder.tensors.filter { $0.fileIndex == 0 }.map(\.name))
    #expect(folder[folder.tensors[3].name]?.entry == folder.tensors[3].entry)
    #expect(folder["no such tensor"] == nil)
  }

  @Test func whatIsMissingIsSaid() throws {
    let missing = #expect(throws: CheckpointError.self) { try Checkpoint("no/such/folder") }
    #expect(missing?.reason == .notFound)
    #expect(missing?.isMissingInput == true)
  }

  @Test func aSymbolicLinkIsFollowed() throws {
    let folder = try TemporaryFolder()
    try FileManager.default.createSymbolicLink(
      atPath: folder.appending("model.safetensors").string,
      withDestinationPath: Fixtures.path("accepted/all-dtypes.safetensors").string)
    #expect(try Checkpoint(folder.path).files.count == 1)
  }

  @Test func aPipeIsRefusedWithoutWaiting() throws {
    let folder = try TemporaryFolder()
    try #require(mkfifo(folder.appending("model.safetensors").string, 0o600) == 0)
    let error = #expect(throws: CheckpointError.self) { try Checkpoint(folder.path) }
    #expect(error?.reason == .notReadable("it is not a regular file"))
  }

  @Test func oddButLegalFilesOpen() throws {
    let cases = try #require(try Fixtures.json("accepted/cases.json").array)
    #expect(cases.count >= 8)
    for row in cases {
      let name = try #require(row["path"]?.string)
      let checkpoint = try Checkpoint(Fixtures.path("accepted").pushing(FilePath(name)))
      #expect(checkpoint.tensors.count == row["tensors"]?.integer, "\(name)")
      let names = try #require(row["names"]?.array?.compactMap { $0.string })
      #expect(Set(checkpoint.tensors.map(\.name)) == Set(names), "\(name)")
    }
  }

  /// Every hand-made bad input is refused with one line that names what is wrong.
  @Test func malformedInputsAreRefused() throws {
    let cases = try #require(try Fixtures.json("malformed/cases.json").array)
    #expect(cases.count >= 140)
    for row in cases {
      let name = try #require(row["path"]?.string)
      let error = #expect(throws: CheckpointError.self, "\(name)") {
        try Checkpoint(Fixtures.path("malformed").pushing(FilePath(name)))
      }
      #expect(error?.isMissingInput == false, "\(name)")
      let message = error?.description ?? ""
      #expect(!message.contains("\n"), "\(name): \(message)")
      #expect(message.lowercased().contains(row["about"]?.string ?? "?"), "\(name): \(message)")
    }
  }
}
