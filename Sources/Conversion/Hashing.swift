import Checkpoints
import Crypto
import Kernels
import SystemPackage

private let hashBlock = 1 << 17

/// SHA-256, in lower-case hexadecimal, of a range of a file.
func sha256(of file: FileDescriptor, _ range: Range<Int>) throws(Errno) -> String {
  var hasher = SHA256()
  var buffer = [UInt8](repeating: 0, count: min(hashBlock, max(range.count, 1)))
  var offset = range.lowerBound
  while offset < range.upperBound {
    let count = min(buffer.count, range.upperBound - offset)
    let got = try file.readFully(at: offset, count: count, into: &buffer)
    hasher.update(data: buffer[..<got])
    guard got == count else { break }
    offset += got
  }
  return hexadecimal(hasher.finalize())
}

/// SHA-256, in lower-case hexadecimal, of the bytes of a tensor.
func sha256(of tensor: CheckpointTensor, using buffer: inout [UInt8]) throws(CheckpointError) -> String {
  var hasher = SHA256()
  let size = tensor.entry.bytes.count
  for start in stride(from: 0, to: size, by: hashBlock) {
    let part = start..<min(start + hashBlock, size)
    try tensor.file.read(part, of: tensor.entry, into: &buffer)
    hasher.update(data: buffer[..<part.count])
  }
  return hexadecimal(hasher.finalize())
}

private func hexadecimal(_ digest: SHA256.Digest) -> String {
  digest.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
}
