import ArgumentParser

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
