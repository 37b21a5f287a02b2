/// Packs codes of `bits` bits into a dense stream: code `i` takes stream bits `bits·i ..< bits·(i+1)`, its least
/// significant bit first, and stream bit `t` is bit `t mod 8` of byte `t / 8`. Unused bits of the last byte are zero.
///
/// - Precondition: 1 ≤ bits ≤ 8, every code is below `1 << bits`, and `bytes` holds `packedByteCount`.
package func packBits(_ codes: Span<UInt8>, bits: Int, into bytes: inout MutableSpan<UInt8>) {
  let count = codes.count
  precondition((1...8).contains(bits) && bytes.count >= packedByteCount(codes: count, bits: bits))
  bytes.withUnsafeMutableBufferPointer { target in
    codes.withUnsafeBufferPointer { source in
      guard let input = source.baseAddress, let output = target.baseAddress else { return }
      var index = 0
      var position = 0
      switch bits {
      case 8:
        UnsafeMutableRawPointer(output).copyMemory(from: input, byteCount: count)
        return
      case 4:
        // Two codes are one 16-bit lane: shifting it right by four brings the second beside the first.
        // Bounds: reads 32 codes while index + 32 ≤ count and writes their 16 bytes.
        while index &+ 32 <= count {
          let pairs = input.lanes(index, as: SIMD16<UInt16>.self)
          output.store(SIMD16<UInt8>(truncatingIfNeeded: pairs | (pairs &>> 4)), at: position)
          index &+= 32
          position &+= 16
        }
      default:
        // Eight codes make exactly `bits` bytes: within a word, neighbours are joined to pairs, fours and eights.
        let (pair, four, eight) = (UInt64(8 - bits), UInt64(16 - 2 * bits), UInt64(32 - 4 * bits))
        let end = packedByteCount(codes: count, bits: bits)
        // Bounds: reads eight codes while index + 8 ≤ count. All eight bytes of a word, whose upper ones are zeros that
        // the next codes replace, are written where they lie within the stream, else those that the codes fill.
        while index &+ 8 <= count {
          var word = UnsafeRawPointer(input).loadUnaligned(fromByteOffset: index, as: UInt64.self)
          word = (word & 0x00ff_00ff_00ff_00ff) | ((word & 0xff00_ff00_ff00_ff00) &>> pair)
          word = (word & 0x0000_ffff_0000_ffff) | ((word & 0xffff_0000_ffff_0000) &>> four)
          word = (word & 0x0000_0000_ffff_ffff) | ((word & 0xffff_ffff_0000_0000) &>> eight)
          if position &+ 8 <= end {
            UnsafeMutableRawPointer(output).storeBytes(of: word, toByteOffset: position, as: UInt64.self)
          } else {
            for byte in 0..<bits { output[position &+ byte] = UInt8(truncatingIfNeeded: word &>> UInt64(byte &* 8)) }
          }
          index &+= 8
          position &+= bits
        }
      }
      // The rest, fewer than 32 codes, a bit stream in a register. Bounds: packedByteCount covers every byte written.
      var word: UInt64 = 0
      var filled = 0
      while index < count {
        word |= UInt64(input[index]) &<< UInt64(filled)
        filled &+= bits
        index &+= 1
        while filled >= 8 || index == count && filled > 0 {
          output[position] = UInt8(truncatingIfNeeded: word)
          word &>>= 8
          filled &-= 8
          position &+= 1
        }
      }
    }
  }
}

/// Reads codes back from a stream that `packBits` describes, starting with the first bit of `bytes`.
/// - Precondition: 1 ≤ bits ≤ 8 and `bytes` holds `packedByteCount` for as many codes as `codes` takes.
package func unpackBits(_ bytes: Span<UInt8>, bits: Int, into codes: inout MutableSpan<UInt8>) {
  let count = codes.count
  precondition((1...8).contains(bits) && bytes.count >= packedByteCount(codes: count, bits: bits))
  let mask = UInt16(1 << bits) - 1
  codes.withUnsafeMutableBufferPointer { target in
    bytes.withUnsafeBufferPointer { source in
      guard let input = source.baseAddress, let output = target.baseAddress else { return }
      var index = 0
      // Bounds: two codes per byte read; code `index` needs bytes up to (bits·(index+1) − 1) / 8, inside packedByteCount.
      if bits == 4 {
        while index &+ 32 <= count {
          let wide = SIMD16<UInt16>(truncatingIfNeeded: input.lanes(index &>> 1, as: SIMD16<UInt8>.self))
          output.store((wide & 0x0f) | ((wide & 0xf0) &<< 4), at: index)
          index &+= 32
        }
      }
      while index < count {
        let bit = index &* bits
        var pair = UInt16(input[bit &>> 3])
        if bit & 7 &+ bits > 8 { pair |= UInt16(input[(bit &>> 3) &+ 1]) &<< 8 }
        output[index] = UInt8(truncatingIfNeeded: (pair &>> UInt16(bit & 7)) & mask)
        index &+= 1
      }
    }
  }
}

/// Bytes of the low four bits of codes, beside those of as many codes at another place above them.
/// - Precondition: `count` is a multiple of 16, and the codes and bytes are there.
package func packNibbles(
  _ codes: Span<UInt8>, low: Int, high: Int, count: Int, into bytes: inout MutableSpan<UInt8>, at position: Int
) {
  precondition(low >= 0 && high >= 0 && max(low, high) + count <= codes.count && count % 16 == 0)
  precondition(position >= 0 && position + count <= bytes.count)
  bytes.withUnsafeMutableBufferPointer { target in
    codes.withUnsafeBufferPointer { source in
      guard let input = source.baseAddress, let output = target.baseAddress else { return }
      // Bounds: sixteen of each while index + 16 ≤ count, by the preconditions.
      for index in stride(from: 0, to: count, by: 16) {
        let (first, second) = (
          input.lanes(low &+ index, as: SIMD16<UInt8>.self), input.lanes(high &+ index, as: SIMD16<UInt8>.self)
        )
        output.store((first & 15) | (second &<< 4), at: position &+ index)
      }
    }
  }
}

/// Bytes that a stream of `codes` codes takes.
package func packedByteCount(codes: Int, bits: Int) -> Int { (codes * bits + 7) / 8 }
