// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Programs in several languages.
  static let code: [String] = [
    #"""
    from __future__ import annotations

    import argparse
    import csv
    import sys
    from collections import defaultdict
    from dataclasses import dataclass, field
    from datetime import date, timedelta
    from pathlib import Path
    from typing import Iterable, Iterator


    @dataclass(order=True)
    class Sighting:
        day: date
        species: str = field(compare=False)
        count: int = field(compare=False, default=1)


    def read_sightings(path: Path) -> Iterator[Sighting]:
        """Yields the rows of a file, and skips those whose count isn't a number."""
        with path.open(newline="", encoding="utf-8") as handle:
            for number, row in enumerate(csv.DictReader(handle), start=2):
                try:
                    yield Sighting(date.fromisoformat(row["date"]), row["species"].strip(), \#
    int(row["count"]))
                except (KeyError, ValueError) as error:
                    print(f"{path}:{number}: skipped ({error})", file=sys.stderr)


    def weekly_totals(sightings: Iterable[Sighting]) -> dict[str, dict[date, int]]:
        totals: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
        for s in sightings:
            monday = s.day - timedelta(days=s.day.weekday())
            totals[s.species][monday] += s.count
        return totals


    def main() -> int:
        parser = argparse.ArgumentParser(description="Sum up sightings by week.")
        parser.add_argument("files", nargs="+", type=Path)
        parser.add_argument("--min-total", type=int, default=5, metavar="N")
        args = parser.parse_args()

        merged = sorted(s for path in args.files for s in read_sightings(path))
        for species, weeks in sorted(weekly_totals(merged).items()):
            if sum(weeks.values()) < args.min_total:
                continue
            bars = " ".join(f"{monday:%d.%m.}={n}" for monday, n in sorted(weeks.items()))
            print(f"{species:<28} {bars}")
        return 0


    if __name__ == "__main__":
        raise SystemExit(main())

    """#,
    #"""
    import numpy as np


    def power_iteration(a: np.ndarray, steps: int = 200, tol: float = 1e-10, seed: int = 0):
        """Largest eigenvalue (in magnitude) of a symmetric matrix and its eigenvector."""
        rng = np.random.default_rng(seed)
        v = rng.standard_normal(a.shape[0])
        v /= np.linalg.norm(v)
        value = 0.0
        for step in range(steps):
            w = a @ v
            new = float(v @ w)
            v = w / np.linalg.norm(w)
            if abs(new - value) <= tol * max(1.0, abs(new)):
                return new, v
            value = new
        raise RuntimeError(f"no convergence after {steps} steps, last value {value:.6g}")


    class Momentum:
        def __init__(self, params, lr=1e-2, beta=0.9):
            self.params, self.lr, self.beta = params, lr, beta
            self.velocity = {name: np.zeros_like(p) for name, p in params.items()}

        def step(self, grads):
            for name, grad in grads.items():
                v = self.velocity[name]
                v *= self.beta
                v += grad
                self.params[name] -= self.lr * v

    """#,
    #"""
    /* A hash table with open addressing. Keys are copied, values are not. */
    #include <stdbool.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>

    typedef struct {
        char *key;      /* NULL: the slot is free */
        void *value;
    } slot_t;

    typedef struct {
        slot_t *slots;
        size_t capacity;    /* always a power of two */
        size_t used;
    } table_t;

    static uint64_t fnv1a(const char *s) {
        uint64_t h = 14695981039346656037ULL;
        for (; *s != '\0'; ++s) {
            h ^= (unsigned char)*s;
            h *= 1099511628211ULL;
        }
        return h;
    }

    static slot_t *find(slot_t *slots, size_t capacity, const char *key) {
        size_t mask = capacity - 1;
        for (size_t i = fnv1a(key) & mask;; i = (i + 1) & mask) {
            if (slots[i].key == NULL || strcmp(slots[i].key, key) == 0)
                return &slots[i];
        }
    }

    static bool grow(table_t *t) {
        size_t capacity = t->capacity ? 2 * t->capacity : 16;
        slot_t *slots = calloc(capacity, sizeof *slots);
        if (slots == NULL)
            return false;
        for (size_t i = 0; i < t->capacity; ++i) {
            if (t->slots[i].key != NULL)
                *find(slots, capacity, t->slots[i].key) = t->slots[i];
        }
        free(t->slots);
        t->slots = slots;
        t->capacity = capacity;
        return true;
    }

    bool table_put(table_t *t, const char *key, void *value) {
        if (4 * (t->used + 1) > 3 * t->capacity && !grow(t))
            return false;
        slot_t *slot = find(t->slots, t->capacity, key);
        if (slot->key == NULL) {
            if ((slot->key = strdup(key)) == NULL)
                return false;
            t->used++;
        }
        slot->value = value;
        return true;
    }

    """#,
    #"""
    // Debounced search with cancellation: only the latest request may touch the page.
    const input = document.querySelector("#search");
    const list = document.querySelector("#results");
    let controller = null;

    function debounce(fn, delay = 250) {
      let timer;
      return (...args) => {
        clearTimeout(timer);
        timer = setTimeout(() => fn(...args), delay);
      };
    }

    async function search(query) {
      controller?.abort();
      controller = new AbortController();
      try {
        const response = await fetch(`/api/search?q=${encodeURIComponent(query)}`, { signal: \#
    controller.signal });
        if (!response.ok) throw new Error(`HTTP ${response.status}`);
        const { hits, total } = await response.json();
        list.replaceChildren(
          ...hits.map(({ id, title, year }) => {
            const item = document.createElement("li");
            const link = Object.assign(document.createElement("a"), { href: `/item/${id}`, textContent: \#
    title });
            item.append(link, ` (${year ?? "n.d."})`);
            return item;
          })
        );
        document.title = total === 1 ? "1 result" : `${total} results`;
      } catch (error) {
        if (error.name !== "AbortError") console.error("search failed:", error);
      }
    }

    input.addEventListener("input", debounce((event) => search(event.target.value.trim())));

    """#,
    #"""
    use std::collections::{BinaryHeap, HashMap};
    use std::cmp::Reverse;

    /// A weighted directed graph as adjacency lists.
    #[derive(Debug, Default)]
    pub struct Graph {
        edges: HashMap<u32, Vec<(u32, u64)>>,
    }

    impl Graph {
        pub fn add(&mut self, from: u32, to: u32, cost: u64) -> &mut Self {
            self.edges.entry(from).or_default().push((to, cost));
            self
        }

        /// The cheapest way from `start` to `goal`, with its cost, or `None` if there isn't any.
        pub fn shortest_path(&self, start: u32, goal: u32) -> Option<(u64, Vec<u32>)> {
            let mut best: HashMap<u32, (u64, Option<u32>)> = HashMap::from([(start, (0, None))]);
            let mut queue = BinaryHeap::from([Reverse((0u64, start))]);
            while let Some(Reverse((cost, node))) = queue.pop() {
                if node == goal {
                    let mut path = vec![goal];
                    while let Some(previous) = best[path.last()?].1 {
                        path.push(previous);
                    }
                    path.reverse();
                    return Some((cost, path));
                }
                if cost > best[&node].0 {
                    continue; // an outdated entry
                }
                for &(next, weight) in self.edges.get(&node).map(Vec::as_slice).unwrap_or(&[]) {
                    let total = cost.checked_add(weight)?;
                    if best.get(&next).map_or(true, |&(known, _)| total < known) {
                        best.insert(next, (total, Some(node)));
                        queue.push(Reverse((total, next)));
                    }
                }
            }
            None
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn takes_the_detour_when_it_is_cheaper() {
            let mut graph = Graph::default();
            graph.add(1, 2, 10).add(1, 3, 2).add(3, 2, 3);
            assert_eq!(graph.shortest_path(1, 2), Some((5, vec![1, 3, 2])));
            assert!(graph.shortest_path(2, 1).is_none());
        }
    }

    """#,
    #"""
    CREATE TABLE loans (
        id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        copy_id     BIGINT NOT NULL REFERENCES copies (id),
        member_id   BIGINT NOT NULL REFERENCES members (id) ON DELETE RESTRICT,
        lent_on     DATE   NOT NULL DEFAULT CURRENT_DATE,
        due_on      DATE   NOT NULL,
        returned_on DATE,
        CHECK (due_on > lent_on AND (returned_on IS NULL OR returned_on >= lent_on))
    );

    CREATE UNIQUE INDEX one_open_loan_per_copy ON loans (copy_id) WHERE returned_on IS NULL;

    -- Members with overdue books, worst first, and how this compares with the month before.
    WITH overdue AS (
        SELECT member_id, COUNT(*) AS books, MAX(CURRENT_DATE - due_on) AS days
        FROM loans
        WHERE returned_on IS NULL AND due_on < CURRENT_DATE
        GROUP BY member_id
        HAVING COUNT(*) > 1
    )
    SELECT m.name, m.email, o.books, o.days,
           RANK() OVER (ORDER BY o.days DESC, o.books DESC) AS place,
           COALESCE(SUM(f.amount), 0)::numeric(8, 2) AS fees
    FROM overdue o
    JOIN members m ON m.id = o.member_id
    LEFT JOIN fees f ON f.member_id = m.id AND f.paid_on IS NULL
    GROUP BY m.name, m.email, o.books, o.days
    ORDER BY place
    LIMIT 20;

    """#,
    #"""
    #!/usr/bin/env bash
    # Keeps the last seven daily and the last four weekly snapshots of a folder.
    set -euo pipefail

    source_dir=${1:?usage: snapshot SOURCE TARGET}
    target_dir=${2:?usage: snapshot SOURCE TARGET}
    today=$(date +%F)
    latest="$target_dir/latest"

    mkdir -p "$target_dir/daily" "$target_dir/weekly"
    rsync --archive --delete --link-dest="$latest/" "$source_dir/" "$target_dir/daily/$today.part/"
    mv "$target_dir/daily/$today.part" "$target_dir/daily/$today"
    ln --symbolic --force --no-dereference "daily/$today" "$latest"

    if [[ $(date +%u) -eq 7 ]]; then
      cp --archive --link "$target_dir/daily/$today" "$target_dir/weekly/$today"
    fi

    prune() {
      local folder=$1 keep=$2
      find "$folder" -mindepth 1 -maxdepth 1 -type d | sort -r | tail -n "+$((keep + 1))" | while read -r \#
    old; do
        echo "removing $old" >&2
        rm -rf -- "$old"
      done
    }
    prune "$target_dir/daily" 7
    prune "$target_dir/weekly" 4

    """#,
    #"""
    package main

    import (
    	"context"
    	"errors"
    	"fmt"
    	"net/http"
    	"sync"
    	"time"
    )

    // check asks each address once, at most four at a time, and reports what it found.
    func check(ctx context.Context, addresses []string) map[string]error {
    	results := make(map[string]error, len(addresses))
    	var mu sync.Mutex
    	var wg sync.WaitGroup
    	slots := make(chan struct{}, 4)
    	for _, address := range addresses {
    		wg.Add(1)
    		go func(address string) {
    			defer wg.Done()
    			slots <- struct{}{}
    			defer func() { <-slots }()
    			err := ping(ctx, address)
    			mu.Lock()
    			defer mu.Unlock()
    			results[address] = err
    		}(address)
    	}
    	wg.Wait()
    	return results
    }

    func ping(ctx context.Context, address string) error {
    	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
    	defer cancel()
    	request, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
    	if err != nil {
    		return err
    	}
    	response, err := http.DefaultClient.Do(request)
    	if errors.Is(err, context.DeadlineExceeded) {
    		return fmt.Errorf("no answer within 3 s")
    	} else if err != nil {
    		return err
    	}
    	defer response.Body.Close()
    	if response.StatusCode >= 400 {
    		return fmt.Errorf("status %d", response.StatusCode)
    	}
    	return nil
    }

    """#,
    #"""
    public final class RateLimiter {
        private final double permitsPerSecond;
        private final double burst;
        private double stored;
        private long lastNanos;

        public RateLimiter(double permitsPerSecond, double burst) {
            if (permitsPerSecond <= 0 || burst < 1) {
                throw new IllegalArgumentException("rate must be positive and burst at least 1");
            }
            this.permitsPerSecond = permitsPerSecond;
            this.burst = burst;
            this.stored = burst;
            this.lastNanos = System.nanoTime();
        }

        /** Returns whether a permit was free; never blocks. */
        public synchronized boolean tryAcquire() {
            long now = System.nanoTime();
            stored = Math.min(burst, stored + (now - lastNanos) * 1e-9 * permitsPerSecond);
            lastNanos = now;
            if (stored < 1) {
                return false;
            }
            stored -= 1;
            return true;
        }
    }

    """#,
    #"""
    diff --git a/src/parser.ts b/src/parser.ts
    index 4be1a07..9c2f5d3 100644
    --- a/src/parser.ts
    +++ b/src/parser.ts
    @@ -41,9 +41,14 @@ export function parseDuration(text: string): number {
    -  const match = /^(\d+)(s|m|h)$/.exec(text);
    +  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(text.trim());
       if (!match) {
    -    throw new Error("bad duration");
    +    throw new RangeError(`"${text}" is not a duration; expected a number and one of ms, s, m, h, d`);
       }
    -  return Number(match[1]) * { s: 1, m: 60, h: 3600 }[match[2]];
    +  const factors: Record<string, number> = { ms: 1e-3, s: 1, m: 60, h: 3600, d: 86400 };
    +  const seconds = Number(match[1]) * factors[match[2]];
    +  if (!Number.isFinite(seconds)) {
    +    throw new RangeError(`"${text}" is too long`);
    +  }
    +  return seconds;
     }

    """#,
    #"""
    data Expr
      = Num Double
      | Var String
      | Expr :+: Expr
      | Expr :*: Expr
      deriving (Eq, Show)

    -- | The derivative with respect to a variable, not simplified.
    derive :: String -> Expr -> Expr
    derive _ (Num _) = Num 0
    derive x (Var y) = Num (if x == y then 1 else 0)
    derive x (a :+: b) = derive x a :+: derive x b
    derive x (a :*: b) = (derive x a :*: b) :+: (a :*: derive x b)

    simplify :: Expr -> Expr
    simplify (a :+: b) = case (simplify a, simplify b) of
      (Num 0, e) -> e
      (e, Num 0) -> e
      (Num m, Num n) -> Num (m + n)
      (e, f) -> e :+: f
    simplify (a :*: b) = case (simplify a, simplify b) of
      (Num 0, _) -> Num 0
      (_, Num 0) -> Num 0
      (Num 1, e) -> e
      (e, Num 1) -> e
      (e, f) -> e :*: f
    simplify e = e

    """#,
    #"""
    Why does this loop never end?

    ```python
    x = 0.0
    while x != 1.0:
        x += 0.1
    ```

    Because 0.1 has no exact binary representation. The sum after ten steps is 0.9999999999999999, not 1.0, \#
    and the next one is 1.0999999999999999, so the comparison is never true. Count in integers and divide \#
    instead:

    ```python
    for i in range(11):
        x = i / 10
    ```

    or, if the number of steps is unknown, compare with a tolerance: `while x < 1.0 - 1e-9`. With money, \#
    use `decimal.Decimal("0.1")` (note the quotes) or whole cents.

    """#,
    #"""
    import Foundation

    /// A fixed number of the most recent values, oldest first.
    struct RingBuffer<Element>: Sequence {
        private var storage: [Element?]
        private var head = 0
        private(set) var count = 0

        init(capacity: Int) {
            precondition(capacity > 0)
            storage = Array(repeating: nil, count: capacity)
        }

        mutating func append(_ element: Element) {
            storage[(head + count) % storage.count] = element
            if count < storage.count { count += 1 } else { head = (head + 1) % storage.count }
        }

        func makeIterator() -> AnyIterator<Element> {
            var offset = 0
            return AnyIterator {
                guard offset < count else { return nil }
                defer { offset += 1 }
                return storage[(head + offset) % storage.count]
            }
        }
    }

    var lastTemperatures = RingBuffer<Double>(capacity: 3)
    for value in [18.5, 19.0, 21.25, 20.75] { lastTemperatures.append(value) }
    print(lastTemperatures.map { String(format: "%.1f °C", $0) }.joined(separator: ", "))

    """#,
    #"""
    #include <algorithm>
    #include <iostream>
    #include <memory>
    #include <string>
    #include <string_view>
    #include <vector>

    namespace shapes {

    class Shape {
     public:
      virtual ~Shape() = default;
      [[nodiscard]] virtual double area() const noexcept = 0;
      [[nodiscard]] virtual std::string_view name() const noexcept = 0;
    };

    class Rectangle final : public Shape {
     public:
      constexpr Rectangle(double width, double height) : width_{width}, height_{height} {}
      double area() const noexcept override { return width_ * height_; }
      std::string_view name() const noexcept override { return width_ == height_ ? "square" : "rectangle"; }

     private:
      double width_, height_;
    };

    template <typename T, typename... Args>
    void emplace_shape(std::vector<std::unique_ptr<Shape>>& all, Args&&... args) {
      all.push_back(std::make_unique<T>(std::forward<Args>(args)...));
    }

    }  // namespace shapes

    int main() {
      std::vector<std::unique_ptr<shapes::Shape>> all;
      shapes::emplace_shape<shapes::Rectangle>(all, 2.0, 3.5);
      shapes::emplace_shape<shapes::Rectangle>(all, 2.5, 2.5);
      std::ranges::sort(all, {}, [](const auto& shape) { return shape->area(); });
      for (const auto& shape : all) std::cout << shape->name() << ": " << shape->area() << '\n';
    }

    """#,
  ]
}
