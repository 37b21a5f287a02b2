import ArgumentParser
import Checkpoints
import Conversion
import Dispatch
import Foundation
import Models
import OrderedCollections
import Synchronization

/// How progress is told, always on standard error.
enum ProgressMode: String, CaseIterable, ExpressibleByArgument {
  /// Lines that are redrawn where standard error is a terminal, else nothing.
  case auto
  /// A line every few seconds.
  case plain
  /// JSON, one event a line.
  case json
  case none
}

struct ProgressArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "How progress is told on standard error.",
      discussion: "auto: redrawn lines on a terminal, else nothing; plain: a line every few seconds; json: an event a"
        + " line, for programs; none.",
      valueName: "mode"))
  var progress = ProgressMode.auto
}

/// Tells how far the work is, and how long the rest will take, on standard error.
///
/// Calls may come from any thread. A timer redraws while a long step tells nothing.
final class ProgressDisplay: Sendable {
  private struct State {
    var estimate = TimeEstimate()
    var stage = ""
    /// What is said of the stage beside its share, such as bytes.
    var detail = ""
    var place: WorkProgress?
    var bytes: (done: Int, total: Int)?
    var lastShown = -Double.infinity
    var lastStage = ""
    var drawnLines = 0
    var isFinished = false
  }

  private let verb: String
  private let style: Style
  private let started = ContinuousClock.now
  private let state = Mutex(State())
  // Sources may be used from any thread, which their type does not say.
  private nonisolated(unsafe) let timer: any DispatchSourceTimer

  private enum Style {
    case lines
    case plain
    case json
    case none

    /// Seconds between two things that are told.
    var interval: Double {
      switch self {
      case .lines: 0.1
      case .plain: 5
      case .json: 0.5
      case .none: .infinity
      }
    }
  }

  /// - Parameter verb: what is done, such as `Converting`.
  init(_ arguments: ProgressArguments, verb: String) {
    self.verb = verb
    style =
      switch arguments.progress {
      case .auto: isatty(STDERR_FILENO) != 0 ? .lines : .none
      case .plain: .plain
      case .json: .json
      case .none: .none
      }
    timer = DispatchSource.makeTimerSource(queue: .global(qos: .utility))
    guard style != .none else { return }
    timer.schedule(deadline: .now() + 1, repeating: 1)
    timer.setEventHandler { [weak self] in self?.tick() }
    timer.activate()
  }

  deinit {
    // A source must not be released before it was activated.
    if style == .none { timer.activate() }
    timer.cancel()
  }

  // MARK: What is told

  /// Declares work that comes later, so that it counts from the beginning.
  /// - Parameter bytes: by kind.
  func plan(_ stage: String, _ bytes: [String: Int]) {
    state.withLock { state in
      for (kind, total) in bytes {
        state.estimate.plan(
          Self.key(stage, kind), total: Double(total), cost: Self.secondsPerByte(stage, kind))
      }
    }
  }

  /// The same of work that a model is run for.
  func plan(_ stage: String, _ work: [WorkProgress.Kind: Double]) {
    state.withLock { state in
      for (kind, total) in work {
        state.estimate.plan(Self.key(stage, kind.rawValue), total: total, cost: kind.secondsPerOperation)
      }
    }
  }

  func show(_ progress: ByteProgress) {
    guard style != .none else { return }
    state.withLock { state in
      let whole = (done: progress.done, total: progress.total)
      let kinds = progress.kinds.isEmpty ? ["": whole] : progress.kinds.mapValues { (done: $0.done, total: $0.total) }
      var done: [String: Double] = [:]
      for (kind, part) in kinds {
        let key = Self.key(progress.stage, kind)
        state.estimate.plan(key, total: Double(part.total), cost: Self.secondsPerByte(progress.stage, kind))
        done[key] = Double(part.done)
      }
      state.bytes = (progress.done, progress.total)
      state.place = nil
      advance(&state, progress.stage, done)
    }
  }

  /// - Parameter stage: what the model is run for.
  func show(_ progress: WorkProgress, stage: String) {
    guard style != .none else { return }
    plan(stage, progress.total)
    state.withLock { state in
      var done: [String: Double] = [:]
      for kind in progress.total.keys {
        let key = Self.key(stage, kind.rawValue)
        done[key] = progress.done[kind] ?? 0
      }
      state.bytes = nil
      state.place = progress
      advance(&state, stage, done)
    }
  }

  /// A task of which nothing is known but the share that is done.
  func show(share: Double, stage: String) {
    guard style != .none else { return }
    state.withLock { state in
      state.estimate.plan(Self.key(stage, ""), total: 1, cost: 10)
      (state.bytes, state.place) = (nil, nil)
      advance(&state, stage, [Self.key(stage, ""): share])
    }
  }

  /// Clears the lines.
  func finish() {
    state.withLock { state in
      guard !state.isFinished, style != .none else { return }
      state.isFinished = true
      timer.cancel()
      if state.drawnLines > 0 { write(Self.erasing(state.drawnLines)) }
      state.drawnLines = 0
      if style == .json, state.lastShown > -.infinity {
        let event: JSONValue = ["event": "end", "seconds": .real(Self.rounded(elapsed))]
        write(event.text() + "\n")
      }
    }
  }

  // MARK: Time

  private static func key(_ stage: String, _ kind: String) -> String { "\(stage)/\(kind)" }

  /// First guesses, of two cores; what was measured counts as soon as there is any.
  private static func secondsPerByte(_ stage: String, _ kind: String) -> Double {
    switch (stage, kind) {
    case (_, "copy"), ("checking", _), ("verifying", _), ("scanning", _): 0.6e-9
    case (_, let kind) where kind.hasPrefix("hqq"): 30e-9
    case (_, "Q2_K"): 110e-9
    case (_, let kind) where kind.hasSuffix("_K"): 70e-9
    case (_, let kind) where kind.hasPrefix("IQ4"): 400e-9
    case (_, "Q8_0"): 2.5e-9
    case (_, "Q4_0"), (_, "Q4_1"), (_, "Q5_0"), (_, "Q5_1"), (_, "MXFP4"): 10e-9
    default: 1.2e-9
    }
  }

  private var elapsed: Double { started.duration(to: .now).seconds }

  private func advance(_ state: inout State, _ stage: String, _ done: [String: Double]) {
    let now = elapsed
    state.estimate.advance(done, at: now)
    state.stage = stage
    draw(&state, at: now)
  }

  private func tick() {
    state.withLock { state in
      if !state.stage.isEmpty { draw(&state, at: elapsed) }
    }
  }

  // MARK: Drawing

  private func draw(_ state: inout State, at now: Double) {
    guard !state.isFinished else { return }
    let isNewStage = state.stage != state.lastStage
    guard now - state.lastShown >= style.interval || isNewStage && style != .lines else { return }
    state.lastShown = now
    state.lastStage = state.stage
    switch style {
    case .none: return
    case .json: write(event(state, at: now).text() + "\n")
    case .plain: write("convert-model: " + lines(state, at: now).joined(separator: ", ") + "\n")
    case .lines:
      let width = Self.terminalWidth
      let lines = lines(state, at: now).enumerated().map { index, line in
        String(((index > 0 ? "  " : "") + line).prefix(width))
      }
      write(Self.erasing(state.drawnLines) + lines.joined(separator: "\n"))
      state.drawnLines = lines.count
    }
  }

  /// One for each level: the whole, the block, the layer.
  private func lines(_ state: State, at now: Double) -> [String] {
    let share = Int(100 * min(1, max(0, state.estimate.share(at: now))))
    var first = "\(verb): \(state.stage), \(share) %, \(Self.clock(state.estimate.left(at: now))) left"
    if let bytes = state.bytes, bytes.total >= 1 << 20 {
      first += ", \(Self.gigabytes(bytes.done)) of \(Self.gigabytes(bytes.total))"
    }
    var lines = [first]
    if let place = state.place {
      if let block = place.block, place.blockCount > 0 {
        lines.append("block \(block + 1) of \(place.blockCount), \(Int(100 * place.blockShare)) %")
      }
      if let loss = place.loss {
        lines.append(String(format: "loss %.4g, from %.4g", loss.least, loss.before))
      }
      if let layer = place.layer { lines.append(layer.printable) }
    }
    return lines
  }

  private func event(_ state: State, at now: Double) -> JSONValue {
    var members: OrderedDictionary<String, JSONValue> = [
      "event": "progress", "seconds": .real(Self.rounded(now)), "task": .string(verb.lowercased()),
      "stage": .string(state.stage), "share": .real(Self.rounded(state.estimate.share(at: now))),
      "seconds_left": .real(Self.rounded(state.estimate.left(at: now))),
    ]
    if let bytes = state.bytes {
      members["bytes_done"] = .integer(bytes.done)
      members["bytes_total"] = .integer(bytes.total)
    }
    if let place = state.place {
      if let block = place.block, place.blockCount > 0 {
        members["block"] = .integer(block)
        members["blocks"] = .integer(place.blockCount)
        members["block_share"] = .real(Self.rounded(place.blockShare))
      }
      if let loss = place.loss, loss.before.isFinite {
        members["loss_before"] = .real(loss.before)
        members["loss"] = .real(loss.least)
      }
      if let layer = place.layer { members["layer"] = .string(layer) }
    }
    return .object(members)
  }

  /// Thousandths.
  private static func rounded(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }

  /// Goes up to the first of the lines that were drawn, and clears from there.
  private static func erasing(_ count: Int) -> String {
    "\r" + (count > 1 ? "\u{1b}[\(count - 1)A" : "") + (count > 0 ? "\u{1b}[J" : "")
  }

  private static var terminalWidth: Int {
    var size = winsize()
    guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
    return Int(size.ws_col)
  }

  private static func gigabytes(_ count: Int) -> String {
    count < 1 << 30 ? "\(count / 1_000_000) MB" : String(format: "%.2f GB", Double(count) / 1e9)
  }

  private static func clock(_ seconds: Double) -> String {
    let whole = Int(min(seconds, 1e8).rounded(.up))
    return whole < 90
      ? "\(whole) s" : whole < 5400 ? "\((whole + 30) / 60) min" : "\(whole / 3600) h \(whole / 60 % 60) min"
  }

  private func write(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}
