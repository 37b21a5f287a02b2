// The default calibration text is under the licence of the project, see LICENSE.

extension DefaultText {
  /// Mathematics, in LaTeX and without.
  static let mathematics: [String] = [
    #"""
    \section{An elementary inequality}

    Let $a_1, \dots, a_n$ be positive real numbers. We write
    \[
      A = \frac{1}{n} \sum_{i=1}^{n} a_i, \qquad G = \Bigl( \prod_{i=1}^{n} a_i \Bigr)^{1/n}
    \]
    for their arithmetic and geometric means.

    \begin{theorem}
      We have $G \le A$, with equality if and only if all $a_i$ are equal.
    \end{theorem}

    \begin{proof}
      The exponential function lies above its tangent at $0$, that is, $e^{x} \ge 1 + x$ for all real $x$, \#
    with equality
      only for $x = 0$. Put $x_i = a_i / A - 1$. Then
      \[
        \prod_{i=1}^{n} \frac{a_i}{A} \le \prod_{i=1}^{n} e^{a_i/A - 1} = e^{\sum_i a_i / A - n} = e^{0} = \#
    1 .
      \]
      Multiplying by $A^n$ and taking the $n$-th root gives the claim. Equality holds iff each $x_i$ \#
    vanishes.
    \end{proof}

    """#,
    #"""
    Problem. A tank can be filled by one pipe in 6 hours and by a second one in 4 hours; a drain empties \#
    the full tank in 12 hours. With both pipes running and the drain left open by mistake, how long does it \#
    take to fill the tank?

    Solution. In one hour the first pipe fills 1/6 of the tank, the second 1/4, and the drain removes 1/12. \#
    Together that is 2/12 + 3/12 − 1/12 = 4/12 = 1/3 of the tank per hour. So it takes 3 hours.

    Check: after 3 hours the first pipe has delivered 1/2 of a tank and the second 3/4, which makes 5/4; \#
    the drain has taken 3/12 = 1/4. What remains is exactly one tank.

    """#,
    #"""
    There are infinitely many prime numbers. Suppose somebody hands you a finite list of primes p₁, p₂, …, \#
    p_k and claims that it is complete. Multiply them all and add one: N = p₁·p₂·…·p_k + 1. Dividing N by \#
    any prime of the list leaves the remainder 1, so none of them divides it. But N is greater than 1 and \#
    therefore has some prime divisor, which must be missing from the list. Note that N itself need not be \#
    prime: 2·3·5·7·11·13 + 1 = 30031 = 59·509.

    """#,
    #"""
    Let $X$ be a random variable that takes the values $0, 1, 2, \dots$ with $P(X = k) = e^{-\lambda} \#
    \lambda^k / k!$. Its expectation is $E[X] = \sum_{k \ge 1} k\, e^{-\lambda} \lambda^k / k! = \lambda \#
    e^{-\lambda} \sum_{k \ge 1} \lambda^{k-1} / (k-1)! = \lambda$, and since $E[X(X-1)] = \lambda^2$ by the \#
    same argument, the variance is $\lambda^2 + \lambda - \lambda^2 = \lambda$ as well. For instance, if a \#
    shop sells on average 2.5 umbrellas on a dry day, then the probability of selling none is $e^{-2.5} \#
    \approx 0.082$, and of selling more than five, $1 - \sum_{k=0}^{5} e^{-2.5}\, 2.5^k / k! \approx 0.042$.

    """#,
    #"""
    Step by step: what is 37 × 48?

    37 × 48 = 37 × 50 − 37 × 2
            = 1850 − 74
            = 1776

    And 1776 ÷ 16? Halve four times: 888, 444, 222, 111. So 111.

    Now solve x² − 7x + 12 = 0. We look for two numbers whose sum is 7 and whose product is 12. They're 3 \#
    and 4, so x = 3 or x = 4. If no such pair comes to mind, the formula always works: x = (7 ± √(49 − 48)) \#
    / 2 = (7 ± 1) / 2.

    """#,
  ]
}
