import SystemPackage

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension FileDescriptor {
  /// Reads into `bytes[0..<count]` from an absolute offset, as many system calls as it takes.
  /// - Returns: the bytes read; fewer than `count` only where the file ends.
  package func readFully(at offset: Int, count: Int, into bytes: inout [UInt8]) throws(Errno) -> Int {
    precondition(count <= bytes.count && count >= 0)
    var done = 0
    var failure: Errno?
    // Bounds: done ≤ count ≤ bytes.count, and each call is given at most the count − done bytes that are left.
    bytes.withUnsafeMutableBytes { buffer in
      while done < count {
        let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<count])
        let got = readAt(rawValue, rest.baseAddress, rest.count, off_t(offset + done))
        if got < 0 {
          if errno == EINTR { continue }
          failure = Errno(rawValue: errno)
          return
        }
        if got == 0 { return }
        done += got
      }
    }
    if let failure { throw failure }
    return done
  }

  /// Writes `bytes[0..<count]` at an absolute offset.
  package func writeFully(_ bytes: [UInt8], count: Int, at offset: Int) throws(Errno) {
    precondition(count <= bytes.count && count >= 0)
    var failure: Errno?
    // Bounds: as in readFully.
    bytes.withUnsafeBytes { buffer in
      var done = 0
      while done < count {
        let rest = UnsafeRawBufferPointer(rebasing: buffer[done..<count])
        let put = writeAt(rawValue, rest.baseAddress, rest.count, off_t(offset + done))
        if put < 0 {
          if errno == EINTR { continue }
          failure = Errno(rawValue: errno)
          return
        }
        done += put
      }
    }
    if let failure { throw failure }
  }

  /// Reads the rows in use of a matrix from an absolute offset; the file must hold them.
  package func readRows(into matrix: Matrix, at offset: Int) throws(Errno) {
    let count = matrix.rows * matrix.columns * MemoryLayout<Float>.stride
    var done = 0
    // Bounds: the rows in use are count bytes of the allocation; each call is given at most what is left of them.
    while done < count {
      let start = UnsafeMutableRawPointer(matrix.base) + done
      let got = readAt(rawValue, start, count - done, off_t(offset + done))
      if got < 0, errno == EINTR { continue }
      if got <= 0 { throw got < 0 ? Errno(rawValue: errno) : .ioError }
      done += got
    }
  }

  /// Writes the rows in use of a matrix at an absolute offset.
  package func writeRows(of matrix: Matrix, at offset: Int) throws(Errno) {
    let count = matrix.rows * matrix.columns * MemoryLayout<Float>.stride
    var done = 0
    // Bounds: as in readRows.
    while done < count {
      let put = writeAt(rawValue, UnsafeRawPointer(matrix.base) + done, count - done, off_t(offset + done))
      if put < 0, errno == EINTR { continue }
      if put <= 0 { throw put < 0 ? Errno(rawValue: errno) : .ioError }
      done += put
    }
  }

  /// Gives a new file its size and, where the system can, its room on the device: writes into reserved room cost a
  /// third less time, and cannot fail for lack of it.
  package func allocate(_ count: Int) throws(Errno) {
    #if canImport(Glibc)
      let failure = count > 0 ? posix_fallocate(rawValue, 0, off_t(count)) : 0
      guard [EOPNOTSUPP, ENOSYS, EINVAL, EINTR].contains(failure) else {
        if failure != 0 { throw Errno(rawValue: failure) }
        return
      }
    #endif
    while ftruncate(rawValue, off_t(count)) != 0 {
      if errno != EINTR { throw Errno(rawValue: errno) }
    }
  }

  /// Flushes the file to the device.
  package func flush() throws(Errno) {
    if fsync(rawValue) != 0 { throw Errno(rawValue: errno) }
  }
}

// `FileDescriptor` has methods of the same names as the system calls, which would hide them inside its extension.
private func readAt(_ file: Int32, _ start: UnsafeMutableRawPointer?, _ count: Int, _ offset: off_t) -> Int {
  pread(file, start, count, offset)
}

private func writeAt(_ file: Int32, _ start: UnsafeRawPointer?, _ count: Int, _ offset: off_t) -> Int {
  pwrite(file, start, count, offset)
}
