"""Rotary frequencies written from the papers, one dimension at a time in plain floats; shares nothing with harness/.

A method's formula has the method's name and returns its d / 2 frequencies in radians a token; `<name>_attention`,
where there is one, the multiplier of cosines and sines, which is 1 for the others. Tests hand each what it asks for by
name: d: rotary dimension, b: base, trained: trained length, length: window length, s: length / trained, rescale: one
factor a frequency. What else a formula takes is a parameter of the method, with its default.
"""

import math


def cope(d: int, b: float, trained: int) -> list[float]:
    """arXiv:2602.05258: a raised cosine over the channels that never turned once, 1 at the first, 0 at the last."""
    out = none(d, b)
    slow = [i for i, wavelength in enumerate(wavelengths(d, b)) if wavelength > trained]
    slow = slow if len(slow) > 1 else [d // 2 - 2, d // 2 - 1]
    for j, i in enumerate(slow):
        out[i] *= 0.0 if j == len(slow) - 1 else 0.5 * (1 + math.cos(math.pi * j / (len(slow) - 1)))
    return out


def cope_hard(d: int, b: float, trained: int) -> list[float]:
    """The same channels, all at rest."""
    return [2 * math.pi / wavelength if wavelength <= trained else 0.0 for wavelength in wavelengths(d, b)]


def beta0(b: float, trained: int, length: int) -> float:
    """arXiv:2310.05209, theorem 2: the base at which the critical channel turns just once within the length.

    At that channel b^(x) = trained / 2 pi and, under the other base, beta^(x) = length / 2 pi.
    """
    x = math.log(trained / (2 * math.pi)) / math.log(b)
    return (length / (2 * math.pi)) ** (1 / x)


def p_rope(d: int, b: float, share: float = 0.75) -> list[float]:
    """arXiv:2410.06205: the fastest floor(share d / 2) turn, the others rest."""
    return [theta if i < math.floor(share * d / 2) else 0.0 for i, theta in enumerate(none(d, b))]


def wavelengths(d: int, b: float) -> list[float]:
    return [2 * math.pi * b ** (2 * i / d) for i in range(d // 2)]


def none(d: int, b: float) -> list[float]:
    return [math.pow(b, -2 * i / d) for i in range(d // 2)]


def abf(d: int, b: float, base: float = 5e5) -> list[float]:
    """arXiv:2309.16039: the checkpoint's base does not enter."""
    return none(d, base)


def linear(d: int, b: float, s: float) -> list[float]:
    """arXiv:2306.15595, eq. 4: position m is read as m / s."""
    return [1 / (s * math.pow(b, 2 * i / d)) for i in range(d // 2)]


def ntk(d: int, b: float, s: float) -> list[float]:
    """arXiv:2309.00071, section 3.1."""
    return none(d, b * math.pow(s, d / (d - 2)))


def ntk_fixed(d: int, b: float, s: float) -> list[float]:
    """bojone/rerope: the base times s, and everything slower by s^(2/d)."""
    return [theta / math.pow(s, 2 / d) for theta in none(d, b * s)]


def ntk_mixed(d: int, b: float, s: float, beta: float = 0.75) -> list[float]:
    """bojone/rerope: lambda_1 ... lambda_i = exp(a i^beta), i from 1, with lambda at d/2 equal to s."""
    a = math.log(s) / (d / 2) ** beta
    return [theta / math.exp(a * (i + 1) ** beta) for i, theta in enumerate(none(d, b))]


def dynamic_ntk(d: int, b: float, trained: int, length: int, factor: float = 1.0) -> list[float]:
    """arXiv:2309.00071, section 3.3 (factor 1), and the convention with a factor."""
    if length <= trained:
        return none(d, b)
    return ntk(d, b, factor * length / trained - factor + 1)


def dynamic_linear(d: int, b: float, s: float, factor: float = 1.0) -> list[float]:
    """arXiv:2309.00071, section 3.3."""
    return linear(d, b, max(1.0, factor, s))


def rotations(d: int, b: float, trained: int) -> list[float]:
    """Full turns over the trained length."""
    return [trained / wavelength for wavelength in wavelengths(d, b)]


def yarn_corners(d: int, b: float, trained: int, fast: float, slow: float) -> tuple[float, float]:
    """Real-valued indices at which a dimension turns fast and slow times, by solving b^(2i/d) = L0 / (2 pi r)."""
    return tuple(d / 2 * math.log(trained / (2 * math.pi * r), b) for r in (fast, slow))  # type: ignore[return-value]


def interpolated_share(d: int, b: float, trained: int, fast: float, slow: float, rounded: bool = True) -> list[float]:
    """How much of each dimension is interpolated, by index between corners: the released code of YaRN."""
    low, high = yarn_corners(d, b, trained, fast, slow)
    if rounded:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    return [0.0 if i <= low else 1.0 if i >= high else (i - low) / (high - low) for i in range(d // 2)]


def yarn(
    d: int, b: float, trained: int, s: float, fast: float = 32, slow: float = 1, rounded: bool = True
) -> list[float]:
    share = interpolated_share(d, b, trained, fast, slow, rounded)
    return [t * (1 - m) + m * t / s for t, m in zip(none(d, b), share, strict=True)]


def yarn_harmonic(d: int, b: float, trained: int, s: float) -> list[float]:
    """PoSE's blend of periods."""
    share = interpolated_share(d, b, trained, 32, 1)
    return [1 / ((1 - m) / t + m * s / t) for t, m in zip(none(d, b), share, strict=True)]


def yarn_geometric(d: int, b: float, trained: int, s: float) -> list[float]:
    """Grok-1's blend of logarithms."""
    share = interpolated_share(d, b, trained, 32, 1)
    return [math.exp((1 - m) * math.log(t) + m * math.log(t / s)) for t, m in zip(none(d, b), share, strict=True)]


def yarn_extrapolated(d: int, b: float, trained: int, s: float, extrapolation: float) -> list[float]:
    """jquesnelle/yarn: the mask of what is kept, times the extrapolation factor, before the blend."""
    share = interpolated_share(d, b, trained, 32, 1)
    masks = [(1 - m) * extrapolation for m in share]
    return [t / s * (1 - mask) + t * mask for t, mask in zip(none(d, b), masks, strict=True)]


def yarn_paper(d: int, b: float, trained: int, s: float, fast: float = 32, slow: float = 1) -> list[float]:
    """arXiv:2309.00071, section 3.2: gamma(r) is 0 below alpha, 1 above beta, linear in r between."""
    out = []
    for theta, r in zip(none(d, b), rotations(d, b, trained), strict=True):
        gamma = 0.0 if r < slow else 1.0 if r > fast else (r - slow) / (fast - slow)
        out.append((1 - gamma) * theta / s + gamma * theta)
    return out


def yarn_attention(s: float) -> float:
    """arXiv:2309.00071, section 3.4: sqrt(1/t)."""
    return 0.1 * math.log(s) + 1


def dynamic_yarn(d: int, b: float, trained: int, s: float, factor: float = 1.0) -> list[float]:
    """arXiv:2309.00071, section 3.3."""
    return yarn(d, b, trained, max(1.0, factor, s))


def dynamic_yarn_attention(s: float) -> float:
    return yarn_attention(max(1.0, s))


def ntk_by_parts(d: int, b: float, trained: int, s: float) -> list[float]:
    """part-ntk of jquesnelle/yarn: (1.25, 0.75) between NTK-aware and linear, (16, 2) between unscaled and that."""
    out = []
    to_linear = interpolated_share(d, b, trained, 1.25, 0.75)
    to_scaled = interpolated_share(d, b, trained, 16, 2)
    rows = zip(none(d, b), ntk(d, b, s), linear(d, b, s), to_linear, to_scaled, strict=True)
    for original, aware, interpolated, m, g in rows:
        slow = aware + m * (interpolated - aware)
        out.append(original + g * (slow - original))
    return out


def longrope(d: int, b: float, rescale: list[float]) -> list[float]:
    """arXiv:2402.13753: the period of each dimension times its factor."""
    return [1 / (lam * b ** (2 * i / d)) for i, lam in enumerate(rescale)]


def longrope_dynamic(d: int, b: float, rescale: list[float], s: float, trained: int, length: int) -> list[float]:
    return longrope(d, b, [1 + (lam - 1) * (length / trained - 1) / (s - 1) for lam in rescale])


def longrope_attention(s: float, trained: int) -> float:
    """Log-n at the target length, log(s L0) / log(L0), split evenly over queries and keys."""
    return math.sqrt(math.log(s * trained) / math.log(trained))


def llama3(d: int, b: float, trained: int, s: float, low: float = 1, high: float = 4) -> list[float]:
    """Llama 3.1's release: three cases by wavelength."""
    out = []
    for wavelength in wavelengths(d, b):
        theta = 2 * math.pi / wavelength
        if wavelength < trained / high:
            out.append(theta)
        elif wavelength > trained / low:
            out.append(theta / s)
        else:
            smooth = (trained / wavelength - low) / (high - low)
            out.append((1 - smooth) * theta / s + smooth * theta)
    return out


def power(d: int, b: float, k: float = 0.5, factor: float = 1.0) -> list[float]:
    """arXiv:2308.10882."""
    return [theta / factor * (1 - i / (d / 2)) ** k for i, theta in enumerate(none(d, b))]


def truncated(d: int, b: float, trained: int, factor: float = 1.0, k: float = 0.0) -> list[float]:
    """arXiv:2308.10882: three cases by frequency; `trained`, or another length of the cut-off."""
    c = 2 * math.pi / trained
    out = []
    for theta in power(d, b, k, factor):
        if theta >= c:
            out.append(theta)
        else:
            out.append(c / 16 if theta >= c / 8 else 0.0)
    return out


def resonance(inv_freq: list[float]) -> list[float]:
    """arXiv:2403.00071: whole-token wavelengths, halves to the even one."""
    return [0.0 if theta == 0 else 2 * math.pi / round(2 * math.pi / theta) for theta in inv_freq]


def tells_apart(inv_freq: list[float], length: int) -> int:
    """arXiv:2405.14591: the largest m <= length such that sum cos(n theta) >= 0 for every n = 0 .. m."""
    for m in range(length + 1):
        if math.fsum(math.cos(m * theta) for theta in inv_freq) < 0:
            return m - 1
    return length
