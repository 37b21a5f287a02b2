import Checkpoints
import Kernels
import SystemPackage

/// The lines of a file, read one after another in bounded memory.
struct LineReader: ~Copyable {
  struct Line {
    let bytes: [UInt8]
    /// From 1.
    let number: Int
    /// Of its first byte in the file.
    let offset: Int
  }

  /// A line holds one document; longer ones are hardly JSON lines.
  static let lineLimit = 1 << 26

  let size: Int
  private let file: String
  private let descriptor: FileDescriptor
  private var buffer: [UInt8]
  /// The part of the buffer that was read from the file but not given out.
  private var pending = 0..<0
  /// The place in the file of the next byte to read.
  private var position = 0
  private var number = 0

  /// - Parameter bufferSize: bytes read at a time.
  init(_ path: FilePath, bufferSize: Int = 1 << 20) throws(CheckpointError) {
    precondition(bufferSize > 0)
    (descriptor, size) = try openForReading(path)
    file = path.string
    buffer = [UInt8](repeating: 0, count: min(bufferSize, max(size, 1)))
  }

  deinit { try? descriptor.close() }

  /// The next line without its line feed; nil at the end of the file.
  mutating func next() throws(CalibrationError) -> Line? {
    var bytes: [UInt8] = []
    let start = position - pending.count
    number += 1
    while true {
      if pending.isEmpty {
        try fill()
        if pending.isEmpty { return start == position ? nil : Line(bytes: bytes, number: number, offset: start) }
      }
      let end = buffer[pending].firstIndex(of: UInt8(ascii: "\n"))
      bytes += buffer[pending.lowerBound..<(end ?? pending.upperBound)]
      guard bytes.count <= Self.lineLimit else {
        throw CalibrationError(file: file, line: number, .lineTooLong(limit: Self.lineLimit))
      }
      pending = (end.map { $0 + 1 } ?? pending.upperBound)..<pending.upperBound
      if end != nil { return Line(bytes: bytes, number: number, offset: start) }
    }
  }

  private mutating func fill() throws(CalibrationError) {
    let count: Int
    do {
      count = try descriptor.readFully(at: position, count: buffer.count, into: &buffer)
    } catch {
      throw CalibrationError(file: file, .readFailed(error.description))
    }
    pending = 0..<count
    position += count
  }
}

/// The place of the first byte that is not part of valid UTF-8; nil if all are (Unicode 16, section 3.9.3).
func firstInvalidUTF8(in bytes: some Sequence<UInt8>) -> Int? {
  var parser = Unicode.UTF8.ForwardParser()
  var iterator = bytes.makeIterator()
  var offset = 0
  while true {
    switch parser.parseScalar(from: &iterator) {
    case .valid(let scalar): offset += scalar.count
    case .error: return offset
    case .emptyInput: return nil
    }
  }
}
