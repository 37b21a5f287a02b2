// swift-tools-version: 6.1
import PackageDescription

let settings: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
  name: "convert-model",
  products: [.executable(name: "convert-model", targets: ["ConvertModel"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-algorithms", from: "1.2.1"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/hummingbird-project/swift-mustache", from: "2.1.1"),
    .package(url: "https://github.com/ordo-one/TextTable", from: "0.0.2"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
  ],
  targets: [
    // MARK: Libraries, bottom up
    .systemLibrary(
      name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev", "liblapacke-dev"])]),
    .target(
      name: "Kernels",
      dependencies: ["COpenBLAS", .product(name: "SystemPackage", package: "swift-system")],
      swiftSettings: settings),
    .target(
      name: "Checkpoints",
      dependencies: [
        "Kernels",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .target(
      name: "Models",
      dependencies: [
        "Checkpoints", "Kernels", .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ], swiftSettings: settings),
    .target(name: "Quantization", dependencies: ["Kernels"], swiftSettings: settings),
    .target(
      name: "Calibration",
      dependencies: [
        "Checkpoints", "Kernels", "Models", "Quantization",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .target(
      name: "Packing",
      dependencies: [
        "Checkpoints", "Kernels", "Quantization",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .target(
      name: "Tokenizers",
      dependencies: [
        "Checkpoints",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      exclude: ["sentencepiece_model.proto"],
      swiftSettings: settings),
    .target(
      name: "Evaluation",
      dependencies: [
        "Checkpoints", "Kernels", "Models", "Packing", "Quantization",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .target(
      name: "Reports",
      dependencies: [
        "Checkpoints", "Evaluation", "Kernels", "Quantization",
        .product(name: "Mustache", package: "swift-mustache"),
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "TextTable", package: "TextTable"),
      ],
      swiftSettings: settings),
    .target(
      name: "Conversion",
      dependencies: [
        "Calibration", "Checkpoints", "Evaluation", "Kernels", "Models", "Packing", "Quantization", "Reports",
        "Tokenizers",
        .product(name: "Algorithms", package: "swift-algorithms"),
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),

    // MARK: The command
    .executableTarget(
      name: "ConvertModel",
      dependencies: [
        "Calibration", "Checkpoints", "Conversion", "Evaluation", "Kernels", "Models", "Packing", "Quantization",
        "Reports", "Tokenizers", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),

    // MARK: Benchmarks
    .executableTarget(
      name: "ForwardBenchmarks",
      dependencies: [
        "Checkpoints", "Evaluation", "Kernels", "Models",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Benchmarks/ForwardBenchmarks",
      swiftSettings: settings),
    .executableTarget(
      name: "KernelBenchmarks", dependencies: ["Kernels", "Quantization"], path: "Benchmarks/KernelBenchmarks",
      swiftSettings: settings),

    // MARK: Tests
    .target(
      name: "TestSupport",
      dependencies: [
        "Checkpoints", "Kernels",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/TestSupport",
      swiftSettings: settings),
    .testTarget(name: "KernelsTests", dependencies: ["Kernels", "TestSupport"], swiftSettings: settings),
    .testTarget(
      name: "CheckpointsTests",
      dependencies: [
        "Checkpoints", "Kernels", "TestSupport",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "ModelsTests",
      dependencies: [
        "Checkpoints", "Kernels", "Models", "TestSupport",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "CalibrationTests",
      dependencies: [
        "Calibration", "Checkpoints", "Kernels", "Models", "Quantization", "TestSupport",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "ReportsTests",
      dependencies: [
        "Checkpoints", "Kernels", "Quantization", "Reports", "TestSupport",
        .product(name: "OrderedCollections", package: "swift-collections"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "EvaluationTests",
      dependencies: [
        "Checkpoints", "Evaluation", "Kernels", "Models", "TestSupport", "Tokenizers",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "QuantizationTests",
      dependencies: [
        "Checkpoints", "Kernels", "Quantization", "TestSupport",
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "OrderedCollections", package: "swift-collections"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "PackingTests",
      dependencies: [
        "Checkpoints", "Kernels", "Packing", "Quantization", "TestSupport",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "TokenizersTests",
      dependencies: [
        "Checkpoints", "TestSupport", "Tokenizers",
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "ConversionTests",
      dependencies: [
        "Calibration", "Checkpoints", "Conversion", "Evaluation", "Kernels", "Models", "Packing", "Quantization",
        "Reports", "TestSupport", "Tokenizers",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
    // Also the sources of the fuzzer, which Tests/Fuzz/build makes.
    .testTarget(
      name: "Fuzz",
      dependencies: [
        "Calibration", "Checkpoints", "Conversion", "Evaluation", "Kernels", "Models", "Packing", "Reports",
        "TestSupport", "Tokenizers", .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Fuzz", exclude: ["build", "run"], swiftSettings: settings),
    .testTarget(
      name: "ConvertModelTests",
      dependencies: [
        "Checkpoints", "ConvertModel", "Kernels", "TestSupport",
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: settings),
  ]
)
