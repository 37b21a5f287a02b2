import Foundation
import SystemPackage

// What libFuzzer calls. In the ordinary test program nothing does, and address sanitizer's functions are not there.

/// The target that FUZZ_TARGET names.
private let run: FuzzRun = {
  let name = ProcessInfo.processInfo.environment["FUZZ_TARGET"] ?? ""
  guard let target = FuzzTarget.all.first(where: { $0.name == name }) else {
    print("FUZZ_TARGET is one of", FuzzTarget.all.map(\.name).joined(separator: " "))
    exit(64)
  }
  let folder = FilePath(FileManager.default.temporaryDirectory.path).appending(target.name)
  do {
    let run = try FuzzRun(target, in: folder)
    AllocationWatch.begin()
    return run
  } catch {
    fatalError("\(error)")
  }
}()

@_cdecl("LLVMFuzzerTestOneInput")
func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let run = run
  // Bounds: libFuzzer's start has count bytes.
  let input = Array(UnsafeBufferPointer(start: start, count: count))
  AllocationWatch.expect(inputOf: count)
  _ = run(input)
  AllocationWatch.finish(inputOf: count)
  return 0
}

/// Ends the program where an input of n bytes has a target allocate more than it should: at once more than 10·n, or
/// all in all more than 64·n, each beside a fixed amount.
enum AllocationWatch {
  private struct State {
    var isOn = false
    var limit = Int.max
    var live = 0
    var peak = 0
    var largest = 0
  }

  /// Allocated before the hooks are called, which must not allocate.
  nonisolated(unsafe) private static let state: UnsafeMutablePointer<State> = {
    let state = UnsafeMutablePointer<State>.allocate(capacity: 1)
    state.initialize(to: State())
    return state
  }()

  private static let factor = 10
  private static let peakFactor = 64
  /// What a target may take for any input: buffers of a fixed size, tables, the models of fixtures.
  private static let fixed = 1 << 18
  private static let fixedPeak = 1 << 23

  private typealias MallocHook = @convention(c) (UnsafeRawPointer?, Int) -> Void
  private typealias FreeHook = @convention(c) (UnsafeRawPointer?) -> Void
  private typealias Install = @convention(c) (MallocHook, FreeHook) -> CInt
  private typealias SizeOf = @convention(c) (UnsafeRawPointer?) -> Int

  nonisolated(unsafe) private static var sizeOf: SizeOf?

  static func begin() {
    guard let install = dlsym(nil, "__sanitizer_install_malloc_and_free_hooks"),
      let size = dlsym(nil, "__sanitizer_get_allocated_size")
    else { return }
    sizeOf = unsafeBitCast(size, to: SizeOf.self)
    _ = state
    _ = unsafeBitCast(install, to: Install.self)(
      { _, count in
        let state = AllocationWatch.state
        guard state.pointee.isOn else { return }
        state.pointee.live += count
        state.pointee.peak = max(state.pointee.peak, state.pointee.live)
        if count > state.pointee.largest { state.pointee.largest = count }
        if count > state.pointee.limit { abort() }
      },
      { start in
        let state = AllocationWatch.state
        guard state.pointee.isOn, let start, let sizeOf = AllocationWatch.sizeOf else { return }
        state.pointee.live -= sizeOf(start)
      })
  }

  static func expect(inputOf count: Int) {
    state.pointee = State(isOn: true, limit: factor * count + fixed)
  }

  static func finish(inputOf count: Int) {
    state.pointee.isOn = false
    let (peak, allowed) = (state.pointee.peak, peakFactor * count + fixedPeak)
    guard peak <= allowed else { fatalError("\(peak) bytes at a time for an input of \(count)") }
  }
}
