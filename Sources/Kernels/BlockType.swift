/// The tensor types of GGUF files: plain numbers, and blocks of quantized ones that lie one after another along a row.
///
/// Names, numbers and sizes as in the GGUF specification and ggml's type table.
package struct BlockType: Hashable, Sendable {
  package let name: String
  /// The number that stands for it in a file.
  package let id: UInt32
  /// Values of a block; 1 for plain numbers.
  package let blockLength: Int
  package let blockBytes: Int
  /// Whether this program decodes it.
  package let isReadable: Bool

  private init(_ name: String, _ id: UInt32, _ blockLength: Int, _ blockBytes: Int, isReadable: Bool = true) {
    self.name = name
    self.id = id
    self.blockLength = blockLength
    self.blockBytes = blockBytes
    self.isReadable = isReadable
  }

  package static let f32 = BlockType("F32", 0, 1, 4)
  package static let f16 = BlockType("F16", 1, 1, 2)
  package static let bf16 = BlockType("BF16", 30, 1, 2)
  package static let q40 = BlockType("Q4_0", 2, 32, 18)
  package static let q41 = BlockType("Q4_1", 3, 32, 20)
  package static let q50 = BlockType("Q5_0", 6, 32, 22)
  package static let q51 = BlockType("Q5_1", 7, 32, 24)
  package static let q80 = BlockType("Q8_0", 8, 32, 34)
  package static let q2K = BlockType("Q2_K", 10, 256, 84)
  package static let q3K = BlockType("Q3_K", 11, 256, 110)
  package static let q4K = BlockType("Q4_K", 12, 256, 144)
  package static let q5K = BlockType("Q5_K", 13, 256, 176)
  package static let q6K = BlockType("Q6_K", 14, 256, 210)
  package static let iq4NL = BlockType("IQ4_NL", 20, 32, 18)
  package static let iq4XS = BlockType("IQ4_XS", 23, 256, 136)
  package static let mxfp4 = BlockType("MXFP4", 39, 32, 17)

  /// The types that are read and written, from the widest to the narrowest.
  package static let known: [BlockType] = [
    f32, f16, bf16, q80, q6K, q51, q5K, q50, q41, q4K, q40, iq4NL, iq4XS, mxfp4, q3K, q2K,
  ]

  /// Types that files may hold and `inspect` lists, but that are not decoded.
  private static let listed: [BlockType] = [
    BlockType("Q8_1", 9, 32, 36, isReadable: false), BlockType("Q8_K", 15, 256, 292, isReadable: false),
    BlockType("IQ2_XXS", 16, 256, 66, isReadable: false), BlockType("IQ2_XS", 17, 256, 74, isReadable: false),
    BlockType("IQ3_XXS", 18, 256, 98, isReadable: false), BlockType("IQ1_S", 19, 256, 50, isReadable: false),
    BlockType("IQ3_S", 21, 256, 110, isReadable: false), BlockType("IQ2_S", 22, 256, 82, isReadable: false),
    BlockType("I8", 24, 1, 1, isReadable: false), BlockType("I16", 25, 1, 2, isReadable: false),
    BlockType("I32", 26, 1, 4, isReadable: false), BlockType("I64", 27, 1, 8, isReadable: false),
    BlockType("F64", 28, 1, 8, isReadable: false), BlockType("IQ1_M", 29, 256, 56, isReadable: false),
    BlockType("TQ1_0", 34, 256, 54, isReadable: false), BlockType("TQ2_0", 35, 256, 66, isReadable: false),
  ]

  private static let byID = Dictionary(uniqueKeysWithValues: (known + listed).map { ($0.id, $0) })

  /// The type of a number in a file; nil where there is none.
  package static func with(id: UInt32) -> BlockType? { byID[id] }

  /// Whether values are stored one by one, and so in any number.
  package var isPlain: Bool { blockLength == 1 }

  /// Bytes of a number of values, which is a multiple of the block's.
  package func byteCount(of values: Int) -> Int { values / blockLength * blockBytes }
}
