import Kernels
import SystemPackage

/// An open safetensors file: its validated header, and its data read by range.
package final class SafetensorsFile: Sendable {
  /// The path as the user gave it, for messages.
  package let path: FilePath
  package let header: SafetensorsHeader
  private let descriptor: FileDescriptor

  package init(_ path: FilePath) throws(CheckpointError) {
    let opened = try openForReading(path)
    do {
      header = try Self.readHeader(opened.descriptor, size: opened.size, file: path.string)
    } catch {
      try? opened.descriptor.close()
      throw error
    }
    self.path = path
    descriptor = opened.descriptor
  }

  deinit { try? descriptor.close() }

  private static func readHeader(
    _ descriptor: FileDescriptor, size: Int, file: String
  ) throws(CheckpointError) -> SafetensorsHeader {
    guard size >= 8 else { throw CheckpointError(file: file, .tooShort(bytes: size)) }
    let lengthBytes = try read(descriptor, at: 0, count: 8, file: file)
    let length = lengthBytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard length <= UInt64(SafetensorsHeader.sizeLimit) else {
      throw CheckpointError(file: file, .headerTooLarge(bytes: length, limit: SafetensorsHeader.sizeLimit))
    }
    guard Int(length) <= size - 8 else {
      throw CheckpointError(file: file, .headerBeyondEnd(header: length, file: size))
    }
    let text = try read(descriptor, at: 8, count: Int(length), file: file)
    return try SafetensorsHeader(text: text, fileSize: size, file: file)
  }

  private static func read(
    _ descriptor: FileDescriptor, at offset: Int, count: Int, file: String
  ) throws(CheckpointError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    try readExactly(descriptor, at: offset, count: count, into: &bytes, file: file, tensor: nil)
    return bytes
  }

  /// Reads a part of a tensor into the front of a reused buffer, which grows if it must.
  /// - Parameter range: bytes relative to the tensor's first.
  package func read(_ range: Range<Int>, of entry: TensorEntry, into buffer: inout [UInt8]) throws(CheckpointError) {
    precondition(range.lowerBound >= 0 && range.upperBound <= entry.bytes.count)
    if buffer.count < range.count { buffer = [UInt8](repeating: 0, count: range.count) }
    try readExactly(
      descriptor, at: entry.bytes.lowerBound + range.lowerBound, count: range.count, into: &buffer,
      file: path.string, tensor: entry.name)
  }
}

/// Opens a regular file (symbolic links are followed) and tells its size.
package func openForReading(_ path: FilePath) throws(CheckpointError) -> (descriptor: FileDescriptor, size: Int) {
  let descriptor: FileDescriptor
  do {
    // Without blocking, so that a pipe in a folder is refused below instead of waited for.
    descriptor = try FileDescriptor.open(path, .readOnly, options: [.closeOnExec, .nonBlocking])
  } catch let error as Errno {
    let missing = error == .noSuchFileOrDirectory || error == .notDirectory
    throw CheckpointError(file: path.string, missing ? .notFound : .notReadable(error.description))
  } catch {
    throw CheckpointError(file: path.string, .notReadable("\(error)"))
  }
  do {
    let status = try descriptor.stat()
    if status.type == .regular { return (descriptor, Int(status.size)) }
    try? descriptor.close()
    throw CheckpointError(
      file: path.string, status.type == .directory ? .isDirectory : .notReadable("it is not a regular file"))
  } catch let error as CheckpointError {
    throw error
  } catch {
    throw CheckpointError(file: path.string, .notReadable("\(error)"))
  }
}

/// Reads a whole small file, such as a configuration.
package func readWhole(_ path: FilePath, limit: Int = SafetensorsHeader.sizeLimit) throws(CheckpointError) -> [UInt8] {
  let (descriptor, size) = try openForReading(path)
  defer { try? descriptor.close() }
  guard size <= limit else {
    throw CheckpointError(file: path.string, .notReadable("\(size) bytes, more than the limit of \(limit)"))
  }
  var bytes = [UInt8](repeating: 0, count: size)
  try readExactly(descriptor, at: 0, count: size, into: &bytes, file: path.string, tensor: nil)
  return bytes
}

/// Reads a JSON file whose top level is an object.
/// - Parameter limit: bytes that the file may have.
package func readJSONObject(
  _ path: FilePath, limit: Int = SafetensorsHeader.sizeLimit
) throws(CheckpointError) -> JSONValue {
  let bytes = try readWhole(path, limit: limit)
  do {
    let value = try JSONParser.parse(bytes)
    guard value.object != nil else { throw CheckpointError(file: path.string, .notAnObject) }
    return value
  } catch let error as CheckpointError {
    throw error
  } catch {
    throw CheckpointError(file: path.string, .invalidJSON("\(error)"))
  }
}

func readExactly(
  _ descriptor: FileDescriptor, at offset: Int, count: Int, into buffer: inout [UInt8], file: String, tensor: String?
) throws(CheckpointError) {
  let got: Int
  do {
    got = try descriptor.readFully(at: offset, count: count, into: &buffer)
  } catch {
    throw CheckpointError(file: file, tensor: tensor, .readFailed(error.description))
  }
  guard got == count else {
    throw CheckpointError(file: file, tensor: tensor, .fileShrank(expected: count, found: got))
  }
}
