import ArgumentParser

/// How often a run that takes long records what it has come to.
struct RecordingArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Seconds of work after which a block that is done is recorded, to be gone on from; 0: each is.",
      valueName: "seconds"))
  var recordEvery = 5.0

  func validate() throws {
    guard (0...1e9).contains(recordEvery) else {
      throw ValidationError("--record-every: \(recordEvery) is no number of seconds from 0 on")
    }
  }

  var interval: Duration { .seconds(recordEvery) }
}

/// What becomes of an interrupted run for the same output.
struct ResumptionArguments: ParsableArguments {
  @Flag(
    help: ArgumentHelp(
      "Go on with an interrupted run, or begin; fine if OUTPUT is complete already.",
      discussion: "The same command goes on without it, too, but refuses an OUTPUT that is there."))
  var resume = false

  @Flag(help: "Discard what an interrupted run has done, and begin anew.")
  var restart = false

  func validate() throws {
    if resume, restart { throw ValidationError("--resume and --restart: choose one") }
  }

  /// - Parameters:
  ///   - steps: what an interrupted run has done.
  ///   - work: what that was.
  func announce(_ steps: Int, of work: String = "conversion") {
    guard steps > 0 else { return }
    printNote("going on with an interrupted \(work), \(steps) steps of which are done; --restart begins anew")
  }
}
