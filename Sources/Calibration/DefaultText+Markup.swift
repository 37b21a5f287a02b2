// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Markdown, JSON, HTML, CSS, YAML, tables, a log.
  static let markup: [String] = [
    #"""
    # tidewatch

    [![build](https://ci.example.org/tidewatch/main.svg)](https://ci.example.org/tidewatch)

    A small command-line tool that tells you when the next high tide is, and whether you can still walk to \#
    the island.

    ## Installation

    ```sh
    cargo install tidewatch
    tidewatch fetch --station 0412   # once; data for a year is about 90 kB
    ```

    ## Usage

    | Command | What it does |
    |:--------|:-------------|
    | `tidewatch next` | time and height of the next high and low water |
    | `tidewatch safe --above 1.8m` | all intervals in which the causeway is dry |
    | `tidewatch plot > week.svg` | a picture of the next seven days |

    > **Note**
    > Predictions do not include the weather. A strong onshore wind can add half a metre.

    ## Contributing

    Bug reports are welcome, *especially* with the station number and the exact output of `tidewatch \#
    --version`. Please run
    the tests before you open a pull request, and don't reformat files that you didn't otherwise change.

    """#,
    #"""
    {
      "station": { "id": "0412", "name": "St. Brannoc", "position": [51.6743, -4.7021], "datum": "LAT" },
      "generated": "2024-02-29T06:00:00Z",
      "units": { "height": "m", "time": "UTC" },
      "extremes": [
        { "time": "2024-02-29T08:14:00Z", "height": 7.92, "type": "high" },
        { "time": "2024-02-29T14:31:00Z", "height": 1.27, "type": "low" },
        { "time": "2024-02-29T20:29:00Z", "height": 7.58, "type": "high" }
      ],
      "warnings": [],
      "harmonics": null,
      "approximate": false
    }

    """#,
    #"""
    <!DOCTYPE html>
    <html lang="en">
    <head>
      <meta charset="utf-8">
      <title>Opening hours &ndash; Museum of Small Machines</title>
      <link rel="stylesheet" href="/style.css">
      <script src="/menu.js" defer></script>
    </head>
    <body class="page page--hours">
      <nav aria-label="Main">
        <a href="/">Home</a> | <a href="/visit" aria-current="page">Your visit</a> | <a \#
    href="/shop">Shop</a>
      </nav>
      <main>
        <h1>Opening hours</h1>
        <table>
          <tr><th scope="row">Tuesday to Friday</th><td>10:00 &ndash; 17:00</td></tr>
          <tr><th scope="row">Weekend</th><td>10:00 &ndash; 18:30</td></tr>
          <tr><th scope="row">Monday</th><td><em>closed</em></td></tr>
        </table>
        <p>Last admission is 45 minutes before closing. The steam engine runs on the
           <strong>first Sunday</strong> of each month &mdash; bring earplugs for the little ones.</p>
        <img src="/img/engine.webp" alt="A green steam engine with a brass governor" width="640" \#
    height="427">
      </main>
    </body>
    </html>

    """#,
    #"""
    @media (max-width: 40rem) {
      .gallery { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
      .gallery figure:nth-child(3n) { grid-column: span 2; }
      .caption { font: italic .85rem/1.4 Georgia, serif; color: #5a4a3b; }
      a:hover, a:focus-visible { outline: 2px solid currentColor; outline-offset: 3px; }
    }

    """#,
    #"""
    name: test
    on:
      push: { branches: [main] }
      pull_request:
    jobs:
      unit:
        strategy:
          matrix:
            os: [ubuntu-24.04, macos-15]
            python: ["3.11", "3.13"]
        runs-on: ${{ matrix.os }}
        steps:
          - uses: actions/checkout@v4
          - uses: actions/setup-python@v5
            with:
              python-version: ${{ matrix.python }}
          - run: pip install -e '.[dev]'
          - run: pytest -q --maxfail=3
            timeout-minutes: 10

    """#,
    #"""
    date,species,count,observer,notes
    2023-05-02,Apus apus,14,"Lind, K.",first of the year
    2023-05-02,Motacilla cinerea,2,"Lind, K.","pair, carrying food"
    2023-05-03,Alcedo atthis,1,"Oyelaran, B.",
    2023-05-05,Ardea cinerea,6,"Lind, K.","four adults, two juveniles"
    2023-05-05,Cygnus olor,9,"de Wit, M.","on the weir; one ringed (blue, 4JT)"

    """#,
    #"""
    | Bridge | Opened | Type | Longest span (m) |
    |---|---:|---|---:|
    | Forth Bridge | 1890 | cantilever | 521 |
    | Golden Gate Bridge | 1937 | suspension | 1,280 |
    | Akashi Kaikyō Bridge | 1998 | suspension | 1,991 |
    | Russky Bridge | 2012 | cable-stayed | 1,104 |
    | 1915 Çanakkale Bridge | 2022 | suspension | 2,023 |

    """#,
    #"""
    2024-11-08T02:14:07.113Z INFO  scheduler  picked up job 7f3a (retries=0, queue=thumbnails, waiting=12)
    2024-11-08T02:14:07.340Z DEBUG storage    GET s3://media-eu/originals/2024/11/0c9e.tif 200 48213764 \#
    bytes in 198 ms
    2024-11-08T02:14:09.870Z WARN  imaging    colour profile 'ProPhoto RGB' is not embedded correctly, \#
    assuming sRGB
    2024-11-08T02:14:11.002Z ERROR imaging    out of memory: wanted 1.9 GiB for a 21600x21600 canvas, limit \#
    is 1.5 GiB
    2024-11-08T02:14:11.004Z INFO  scheduler  job 7f3a failed, will retry in 30 s on queue=thumbnails-large
    2024-11-08T02:14:11.019Z INFO  http       POST /v1/jobs/7f3a/status 202 from 10.3.0.17 "worker/5.2"

    """#,
  ]
}
