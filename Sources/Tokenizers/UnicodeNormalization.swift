/// The normalization forms of Unicode Standard Annex #15 on UTF-8.
///
/// Mappings come from `DecompositionData`, combining classes from the standard library. Own tables and not
/// Foundation's, because that brings its own Unicode version and is far slower on text that is normalized already.
package enum UnicodeNormalization {
  /// Which mappings are applied, and whether pairs are composed afterwards.
  package struct Form: Sendable, Hashable {
    let compatibility: Bool
    let composes: Bool
    package static let nfc = Form(compatibility: false, composes: true)
    package static let nfd = Form(compatibility: false, composes: false)
    package static let nfkc = Form(compatibility: true, composes: true)
    package static let nfkd = Form(compatibility: true, composes: false)

    /// Scalars below this are their own normal form and compose with nothing before them.
    var firstAffected: UInt32 { compatibility ? 0xa0 : composes ? 0x300 : 0xc0 }
  }

  private struct Tables: Sendable {
    /// The mapping with its start and count in `scalars`, once applied; bit 31 of the start marks compatibility.
    var mapping: [UInt32: (start: Int, count: Int, compatibility: Bool)] = [:]
    var scalars: [UInt32] = []
    var composition: [UInt64: UInt32] = [:]

    init() {
      var code: UInt32 = 0
      var numbers: [UInt32] = []
      var number: UInt32 = 0
      var kind: UInt8 = 0
      func finish(_ tables: inout Tables) {
        numbers.append(number)
        tables.mapping[code] = (tables.scalars.count, numbers.count, kind == UInt8(ascii: "%"))
        tables.scalars += numbers
        if kind == UInt8(ascii: "!"), numbers.count == 2 {
          tables.composition[UInt64(numbers[0]) << 32 | UInt64(numbers[1])] = code
        }
        numbers = []
        number = 0
      }
      for byte in DecompositionData.text.utf8 {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): number = number * 36 + UInt32(byte - 0x30)
        case UInt8(ascii: "a")...UInt8(ascii: "z"): number = number * 36 + UInt32(byte - 0x61) + 10
        case UInt8(ascii: ","):
          numbers.append(number)
          number = 0
        case UInt8(ascii: ";"): finish(&self)
        default:
          code += number
          kind = byte
          number = 0
        }
      }
      finish(&self)
    }
  }

  private static let tables = Tables()

  // Hangul syllables are computed (Unicode Standard, section 3.12).
  private static let (syllables, leads, vowels, trails) = (
    UInt32(0xac00), UInt32(0x1100), UInt32(0x1161), UInt32(0x11a7)
  )
  private static let (leadCount, vowelCount, trailCount) = (UInt32(19), UInt32(21), UInt32(28))

  private static func decompose(_ scalar: UInt32, _ compatibility: Bool, into output: inout [UInt32]) {
    if scalar >= syllables, scalar < syllables + leadCount * vowelCount * trailCount {
      let index = scalar - syllables
      output.append(leads + index / (vowelCount * trailCount))
      output.append(vowels + index % (vowelCount * trailCount) / trailCount)
      if index % trailCount != 0 { output.append(trails + index % trailCount) }
      return
    }
    guard let row = tables.mapping[scalar], compatibility || !row.compatibility else { return output.append(scalar) }
    for index in row.start..<(row.start + row.count) { decompose(tables.scalars[index], compatibility, into: &output) }
  }

  private static func compose(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if first >= leads, first < leads + leadCount, second >= vowels, second < vowels + vowelCount {
      return syllables + ((first - leads) * vowelCount + (second - vowels)) * trailCount
    }
    if first >= syllables, first < syllables + leadCount * vowelCount * trailCount,
      (first - syllables) % trailCount == 0, second > trails, second < trails + trailCount
    {
      return first + second - trails
    }
    return tables.composition[UInt64(first) << 32 | UInt64(second)]
  }

  private static func combiningClass(_ scalar: UInt32) -> UInt8 {
    guard scalar >= 0x300, let scalar = Unicode.Scalar(scalar) else { return 0 }
    return scalar.properties.canonicalCombiningClass.rawValue
  }

  /// The text in `form`; nil where it has only scalars that the form leaves alone.
  package static func normalize(_ bytes: [UInt8], to form: Form) -> [UInt8]? {
    let limit = form.firstAffected
    var index = 0
    while index < bytes.count {
      let (value, length) = decodeScalar(bytes, index, bytes.count)
      if value >= limit { break }
      index += length
    }
    guard index < bytes.count else { return nil }
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count + bytes.count / 8)
    var segment: [UInt32] = []
    var classes: [UInt8] = []
    index = 0
    while index < bytes.count {
      let (value, length) = decodeScalar(bytes, index, bytes.count)
      index += length
      // A scalar that nothing can change, before another of that kind, passes through.
      if value < limit {
        let next = index < bytes.count ? decodeScalar(bytes, index, bytes.count).value : 0
        if next < limit {
          if !segment.isEmpty { flush(&segment, &classes, form, &result) }
          appendScalar(value, to: &result)
          continue
        }
      }
      let before = segment.count
      decompose(value, form.compatibility, into: &segment)
      // A segment ends before a starter that cannot compose with what is before it; Hangul vowels and trails, and the
      // few starters that compose backwards, keep it open.
      if before > 0, combiningClass(segment[before]) == 0, !composesBackwards(segment[before]) {
        let fresh = Array(segment[before...])
        segment.removeSubrange(before...)
        flush(&segment, &classes, form, &result)
        segment = fresh
      }
    }
    flush(&segment, &classes, form, &result)
    return result
  }

  private static let backwards: Set<UInt32> = Set(tables.composition.keys.map { UInt32(truncatingIfNeeded: $0) })

  private static func composesBackwards(_ scalar: UInt32) -> Bool {
    (scalar >= vowels && scalar < trails + trailCount) || (scalar >= 0x300 && backwards.contains(scalar))
  }

  private static func flush(
    _ segment: inout [UInt32], _ classes: inout [UInt8], _ form: Form, _ result: inout [UInt8]
  ) {
    defer { segment.removeAll(keepingCapacity: true) }
    guard segment.count > 1 else {
      for scalar in segment { appendScalar(scalar, to: &result) }
      return
    }
    classes.removeAll(keepingCapacity: true)
    for scalar in segment { classes.append(combiningClass(scalar)) }
    sortMarks(&segment, classes: &classes)
    if form.composes { compose(&segment, classes) }
    for scalar in segment { appendScalar(scalar, to: &result) }
  }

  /// The canonical ordering algorithm: stable by combining class between starters.
  private static func sortMarks(_ segment: inout [UInt32], classes: inout [UInt8]) {
    var start = 0
    while start < segment.count {
      guard classes[start] != 0 else {
        start += 1
        continue
      }
      var end = start
      var sorted = true
      while end < segment.count, classes[end] != 0 {
        if end > start, classes[end - 1] > classes[end] { sorted = false }
        end += 1
      }
      if !sorted {
        let order = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
        let (scalars, old) = (order.map { segment[$0] }, order.map { classes[$0] })
        segment.replaceSubrange(start..<end, with: scalars)
        classes.replaceSubrange(start..<end, with: old)
      }
      start = end
    }
  }

  /// The canonical composition algorithm.
  private static func compose(_ segment: inout [UInt32], _ classes: [UInt8]) {
    var starter: Int?
    var lastClass: UInt8 = 0
    var count = 0
    for index in segment.indices {
      let scalar = segment[index]
      let own = classes[index]
      // Not blocked: nothing between, or only marks of lower class.
      if let starter, count == starter + 1 || (lastClass < own && lastClass != 0),
        let composed = compose(segment[starter], scalar)
      {
        segment[starter] = composed
        continue
      }
      if own == 0 { starter = count }
      lastClass = own
      segment[count] = scalar
      count += 1
    }
    segment.removeSubrange(count...)
  }
}
