import Checkpoints
import Crypto
import Foundation
import Kernels
import Synchronization
import SystemPackage

/// What of a conversion is done: a line of JSON for each step in the order of the steps, each behind a checksum.
///
/// A line that a crash cut, or that never reached the disk, ends what is read. Lines are written when the bytes that they
/// tell of have been given to the system. A killed process loses neither; after a power cut, bytes may be missing that
/// lines tell of, and therefore whoever goes on checks hashes before believing a line.
package final class Journal: Sendable {
  private let path: FilePath
  private let file: FileDescriptor
  private let state: Mutex<State>
  /// Least time between records of what takes long to write: the states that go into a block, or an optimizer's.
  let interval: Duration
  /// As they were when the journal was opened.
  let entries: [JSONValue]

  private struct State {
    var end: Int
    var steps: Int
  }

  private static let checksumLength = 16

  /// Entries that tell of work, those of earlier runs among them.
  var stepCount: Int { state.withLock { $0.steps } }

  /// Entries that say what the run is made of.
  enum Fact {
    static let identity = "conversion"
    static let tokens = "tokens"
  }

  private static func isStep(_ entry: JSONValue) -> Bool { entry[Fact.identity] == nil && entry[Fact.tokens] == nil }

  /// Opens a journal, or begins one.
  init(_ path: FilePath, interval: Duration) throws(ConversionError) {
    (self.path, self.interval) = (path, interval)
    do {
      file = try FileDescriptor.open(
        path, .readWrite, options: [.create, .closeOnExec], permissions: [.ownerReadWrite, .groupRead, .otherRead])
      let size = Int(try file.stat().size)
      var bytes = [UInt8](repeating: 0, count: size)
      let count = try file.readFully(at: 0, count: size, into: &bytes)
      let (entries, length) = Self.parse(bytes[..<count])
      self.entries = entries
      state = Mutex(State(end: length, steps: entries.count(where: Self.isStep)))
      try file.resize(to: Int64(length), retryOnInterrupt: true)
    } catch {
      throw .writeFailed(path.string, "\(error)")
    }
  }

  deinit { try? file.close() }

  private static func checksum(_ text: ArraySlice<UInt8>) -> String {
    String(hexadecimal(SHA256.hash(data: text)).prefix(checksumLength))
  }

  /// - Returns: the entries up to the first line that is not as it was written, and the bytes that they take.
  private static func parse(_ bytes: ArraySlice<UInt8>) -> (entries: [JSONValue], length: Int) {
    var entries: [JSONValue] = []
    var start = bytes.startIndex
    while let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) {
      let line = bytes[start..<end]
      guard line.count > checksumLength + 1 else { break }
      let text = line.dropFirst(checksumLength + 1)
      guard Array(line.prefix(checksumLength)) == Array(checksum(text).utf8),
        let entry = try? JSONParser.parse(Array(text))
      else { break }
      entries.append(entry)
      start = end + 1
    }
    return (entries, start - bytes.startIndex)
  }

  func append(_ entry: JSONValue) throws(ConversionError) {
    let text = Array(entry.text().utf8)
    let line = Array("\(Self.checksum(text[...])) ".utf8) + text + [UInt8(ascii: "\n")]
    try state.withLock { (state) throws(ConversionError) in
      do {
        try file.writeFully(line, count: line.count, at: state.end)
      } catch {
        throw .writeFailed(path.string, "\(error)")
      }
      state.end += line.count
      if Self.isStep(entry) { state.steps += 1 }
    }
  }
}

extension JSONValue {
  /// A value as JSON; numbers come back as they were.
  init(encoding value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    self = try JSONParser.parse(Array(encoder.encode(value)))
  }

  func decoded<Value: Decodable>(as type: Value.Type) throws -> Value {
    let decoder = JSONDecoder()
    decoder.nonConformingFloatDecodingStrategy = .convertFromString(
      positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    return try decoder.decode(type, from: Data(text().utf8))
  }
}
