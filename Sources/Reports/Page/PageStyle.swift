extension PageTemplate {
  /// The style sheet. Dark is for screens alone, so that pages print on white.
  static let style = """
    :root{--paper:#fbfaf8;--ink:#1d1d1f;--soft:#56565e;--line:#dcd9d3;--card:#fff;--accent:#0b5cad;--warn:#9a3700;
    --h0:#f3f0e8;--h1:#f6e6c8;--h2:#f8d9a4;--h3:#f9c87f;--h4:#f7b25f;--h5:#f09a4a;--h6:#e98b48;--h7:#c2552b;--h8:#a63e26;
    --h9:#852522;--cool:#1d1d1f;--middle:#1d1d1f;--hot:#fff;
    --c0:#0b5cad;--c1:#b5541c;--c2:#2f7d4f;--c3:#8a3ea0;--c4:#8a6d00;--c5:#007a87;--c6:#b03060;--c7:#8a8880}
    @media screen and (prefers-color-scheme:dark){:root{--paper:#16171a;--ink:#ececf0;--soft:#a9aab4;--line:#34363d;
    --card:#1e2025;--accent:#7ab8ff;--warn:#ffb088;
    --h0:#23252b;--h1:#33302f;--h2:#453930;--h3:#584231;--h4:#6b4b31;--h5:#7d5431;--h6:#b9743f;--h7:#d4894c;--h8:#eba061;
    --h9:#ffc08a;--cool:#ececf0;--middle:#16171a;--hot:#16171a;
    --c0:#7ab8ff;--c1:#ff9d66;--c2:#6fcf97;--c3:#d59bea;--c4:#e6c84c;--c5:#5cd0de;--c6:#ff8ab0;--c7:#7d7f8a}}
    *{box-sizing:border-box}
    html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
    body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
    header,main{max-width:1400px;margin:0 auto;padding:0 24px}main{padding-bottom:48px}
    header{padding-top:32px}.kicker{margin:0;color:var(--soft)}.subtitle{color:var(--soft);max-width:none}
    h1{margin:0;font-size:1.7rem;line-height:1.25;overflow-wrap:anywhere}
    h2{margin:40px 0 8px;font-size:1.3rem;border-top:1px solid var(--line);padding-top:20px;scroll-margin-top:0}
    h3{margin:28px 0 4px;font-size:1rem}p{margin:4px 0 12px;max-width:76ch}
    a{color:var(--accent)}code{font-size:.9em;overflow-wrap:anywhere}
    nav{display:flex;flex-wrap:wrap;gap:4px 20px;margin:20px 0 0}
    .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,170px),1fr));gap:12px;margin:16px 0 0}
    .tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
    .tiles dt{color:var(--soft);font-size:.85rem}.tiles dd{margin:0;font-size:1.5rem;font-variant-numeric:tabular-nums}
    .tiles dd.note{font-size:.85rem;color:var(--soft)}
    .answers{margin:8px 0 20px;max-width:96ch}.answers dt{font-weight:600;margin-top:14px}
    .answers dd{margin:2px 0 0;overflow-wrap:anywhere}
    ul{padding-left:1.3em;margin:4px 0 12px}li{margin:3px 0;max-width:96ch;overflow-wrap:anywhere}
    .warnings{border-left:3px solid var(--warn);padding-left:14px;margin:16px 0}
    .warnings summary{color:var(--warn);font-weight:600;cursor:pointer}.warnings h3{margin:10px 0 2px;font-size:.95rem}
    .scroll{overflow-x:auto;margin:8px 0;max-width:100%}
    .tall{max-height:75vh;overflow:auto;border:1px solid var(--line);border-radius:8px}
    .deep{max-height:70vh;overflow:auto}.deep thead th{position:sticky;top:0;background:var(--paper)!important}
    .maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:8px 32px;align-items:start}
    figure{margin:0;min-width:0}.maps>div{min-width:0}
    figcaption{font-size:.85rem;color:var(--soft);max-width:76ch}
    table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
    caption{text-align:left;font-weight:600;padding:8px 0 6px}
    th,td{text-align:left;padding:5px 10px;border-bottom:1px solid var(--line);font-weight:400;white-space:nowrap}
    thead th{color:var(--soft);background:var(--card);vertical-align:bottom;white-space:normal}
    .tall thead th{position:sticky;top:0;z-index:1}
    .n{text-align:right}.numbers td,.numbers thead th:nth-child(n+2){text-align:right}
    .numbers.text-last td:last-child,.numbers.text-last th:last-child{text-align:left;white-space:normal;min-width:16em}
    #ledger td:nth-child(2),#ledger th:nth-child(2){text-align:left;white-space:normal;min-width:8em}
    #ledger th,#ledger td{padding-left:8px;padding-right:8px}
    .facts td{white-space:normal;overflow-wrap:anywhere}.facts th{color:var(--soft);white-space:normal}
    .heat{border-collapse:separate;border-spacing:2px}.heat th{border:0;padding:2px 6px;background:none}
    .heat td{border:0;border-radius:2px;padding:3px 6px;text-align:center;min-width:4em;color:var(--cool)}
    .heat tbody th{text-align:right;color:var(--soft)}.heat thead th{text-align:center}
    .heat td[data-t]{cursor:pointer}.heat .beyond{outline:2px solid var(--warn);font-weight:700}
    .h0{background:var(--h0)}.h1{background:var(--h1)}.h2{background:var(--h2)}.h3{background:var(--h3)}
    .h4{background:var(--h4)}.h5{background:var(--h5)}.h6{background:var(--h6)}.h7{background:var(--h7)}
    .h8{background:var(--h8)}.h9{background:var(--h9)}.heat .h6{color:var(--middle)}
    .heat .h7,.heat .h8,.heat .h9{color:var(--hot)}
    table button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;text-align:inherit}
    tbody button{color:var(--accent)}
    button:focus-visible,input:focus-visible,select:focus-visible,a:focus-visible,summary:focus-visible,
    .tall:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
    th[aria-sort=ascending] button::after{content:" ↑"}th[aria-sort=descending] button::after{content:" ↓"}
    tr.on>*{background:var(--h0)}
    input,select{font:inherit;color:inherit;background:var(--card);border:1px solid var(--soft);border-radius:6px;
    padding:4px 8px;max-width:100%}
    ::placeholder{color:var(--soft);opacity:1}
    .controls{display:flex;flex-wrap:wrap;gap:8px 20px;align-items:center;max-width:none}
    .legend{display:flex;flex-wrap:wrap;gap:2px 18px;max-width:none}
    .legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:6px}
    .detail{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,280px),1fr));gap:12px;margin:8px 0 16px}
    .detail>*{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;min-width:0}
    .detail h3{grid-column:1/-1;padding:0;border:0;background:none;overflow-wrap:anywhere}
    .detail svg{width:100%;height:auto}.detail dl{display:grid;grid-template-columns:auto 1fr;gap:2px 12px;
    font-size:.85rem;align-content:start;font-variant-numeric:tabular-nums}
    .detail dt{color:var(--soft)}.detail dd{margin:0;overflow-wrap:anywhere}
    .terms{display:grid;grid-template-columns:minmax(7em,auto) 1fr;gap:2px 16px;font-size:.85rem;max-width:96ch;
    margin:12px 0}.terms dt{color:var(--soft)}.terms dd{margin:0}
    svg{font:12px system-ui,"Segoe UI",Roboto,sans-serif;display:block}.scroll>svg{max-width:none}svg text{fill:var(--ink)}
    svg .grid{stroke:var(--line)}svg .bar{fill:var(--c0)}svg .leader{stroke:currentColor;stroke-width:.7;opacity:.6}
    svg polyline{fill:none;stroke:currentColor;stroke-width:2}svg circle{fill:currentColor}
    .c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}
    .c5{color:var(--c5)}.c6{color:var(--c6)}.c7{color:var(--c7)}
    .f0{fill:var(--c0);background:var(--c0)}.f1{fill:var(--c1);background:var(--c1)}
    .f2{fill:var(--c2);background:var(--c2)}.f7{fill:var(--c7);background:var(--c7)}
    @media (max-width:600px){header,main{padding-left:14px;padding-right:14px}.tiles{grid-template-columns:1fr 1fr}
    .tiles dd{font-size:1.2rem}.tiles dd.note{font-size:.8rem}h1{font-size:1.4rem}
    .terms{grid-template-columns:1fr}.terms dt{margin-top:6px}
    tbody th{white-space:normal;overflow-wrap:anywhere;min-width:9em;max-width:44vw}
    .numbers.text-last td:last-child{white-space:nowrap}th,td{padding-left:6px;padding-right:6px}
    #ledger tbody th{position:sticky;left:0;background:var(--card)}
    .heat td,.heat tbody th{min-width:0;padding:3px 2px}.heat th{padding:2px}.heat{border-spacing:1px;font-size:.78rem}}
    @media print{@page{margin:14mm}html{font-size:11px}body{background:#fff;print-color-adjust:exact;
    -webkit-print-color-adjust:exact}header,main{max-width:none;padding:0}nav,.controls,.detail{display:none}
    .tall,.deep{max-height:none;overflow:visible;border:0}.scroll{overflow:visible}.tall thead th,.deep thead th{position:static}
    table{font-size:8px}th,td{padding:2px 4px;white-space:normal;overflow-wrap:anywhere}
    h2,h3,caption{break-after:avoid}tr,figure,svg{break-inside:avoid}svg{max-width:100%;height:auto}
    .deep{max-height:70vh;overflow:auto}.deep thead th{position:sticky;top:0;background:var(--paper)!important}
    .maps{grid-template-columns:1fr 1fr}}
    """
}
