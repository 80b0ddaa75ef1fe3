#include "tune/encoder_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <vector>

#include "core/rng.h"

namespace tailor::tune {
namespace {

using Values = std::vector<float>;

Values random_values(std::size_t n, std::uint64_t stream, double scale = 1) {
  Rng rng(11, stream);
  Values v(n);
  for (float& x : v) x = static_cast<float>(scale * rng.normal());
  return v;
}

double dot(const Values& a, const Values& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += static_cast<double>(a[i]) * b[i];
  return total;
}

/// Central differences of dot(f(x), weights) against the analytic gradient; f32 allows about three digits.
void expect_gradient(Values x, const Values& gradient, const std::function<double(const Values&)>& loss,
                     float step = 1e-2f) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float kept = x[i];
    x[i] = kept + step;
    const double up = loss(x);
    x[i] = kept - step;
    const double down = loss(x);
    x[i] = kept;
    ASSERT_NEAR(gradient[i], (up - down) / (2 * step), 5e-3 * std::max(1.0, std::abs(static_cast<double>(gradient[i]))))
        << i;
  }
}

/// Cosines and sines of places as AttentionView::rotary shows them.
Values turns(std::int64_t places, std::int64_t e) {
  Values table;
  for (std::int64_t p = 0; p < places; ++p) {
    for (std::int64_t i = 0; i < e / 2; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(100.0, -2.0 * static_cast<double>(i) / static_cast<double>(e));
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

/// softmax(q k^T / sqrt(e)) v in double, one number at a time.
Values plain_attention(Values qkv, const std::vector<std::int64_t>& offsets, std::int64_t heads, std::int64_t d,
                       const AttentionView& view = {}) {
  const std::int64_t e = d / heads;
  for (std::size_t r = 0; view.rotary != nullptr && r + 1 < offsets.size(); ++r) {
    for (std::int64_t t = offsets[r]; t < offsets[r + 1]; ++t) {
      for (std::int64_t head = 0; head < 2 * heads; ++head) {  // of queries, then of keys
        float* x = qkv.data() + t * 3 * d + head * e;
        for (std::int64_t c = 0; c < e / 2; ++c) {
          const float* turn = view.rotary + (t - offsets[r]) * e + 2 * c;
          const float a = x[c], b = x[c + e / 2];
          x[c] = a * turn[0] - b * turn[1];
          x[c + e / 2] = b * turn[0] + a * turn[1];
        }
      }
    }
  }
  Values out(static_cast<std::size_t>(offsets.back() * d));
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
        std::vector<double> p;
        double total = 0;
        for (std::int64_t j = offsets[r]; j < offsets[r + 1]; ++j) {
          double s = 0;
          for (std::int64_t c = 0; c < e; ++c)
            s += static_cast<double>(qkv[static_cast<std::size_t>(i * 3 * d + h * e + c)]) *
                 qkv[static_cast<std::size_t>(j * 3 * d + d + h * e + c)];
          const bool seen = view.reach < 0 || std::abs(i - j) <= view.reach;
          p.push_back(seen ? std::exp(s / std::sqrt(static_cast<double>(e))) : 0);
          total += p.back();
        }
        for (std::int64_t c = 0; c < e; ++c) {
          double sum = 0;
          for (std::int64_t j = offsets[r]; j < offsets[r + 1]; ++j) {
            sum += p[static_cast<std::size_t>(j - offsets[r])] / total *
                   qkv[static_cast<std::size_t>(j * 3 * d + 2 * d + h * e + c)];
          }
          out[static_cast<std::size_t>(i * d + h * e + c)] = static_cast<float>(sum);
        }
      }
    }
  }
  return out;
}

TEST(EncoderAttention, EqualsThePlainFormulaOnRaggedRows) {
  // Rows of 1, 7, 8, 70 and 130 tokens: below, at and above the width of a vector and of a block of queries.
  const std::vector<std::int64_t> offsets = {0, 1, 8, 16, 86, 216};
  for (const auto& [heads, d] : {std::pair<std::int64_t, std::int64_t>{2, 16}, {3, 36}, {4, 12}}) {
    const Values qkv = random_values(static_cast<std::size_t>(216 * 3 * d), 1);
    Values out(static_cast<std::size_t>(216 * d));
    attention_forward(qkv.data(), offsets, heads, d, out.data());
    const Values expected = plain_attention(qkv, offsets, heads, d);
    for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 2e-6) << "d " << d << " at " << i;
  }
}

TEST(EncoderAttention, EqualsThePlainFormulaInWindowsAndWithTurns) {
  const std::vector<std::int64_t> offsets = {0, 1, 8, 16, 86, 216, 516};
  for (const auto& [heads, d] : {std::pair<std::int64_t, std::int64_t>{2, 16}, {3, 36}, {1, 6}}) {
    const Values qkv = random_values(static_cast<std::size_t>(516 * 3 * d), 1);
    const Values table = turns(300, d / heads);
    for (const std::int64_t reach : {-1, 0, 1, 7, 8, 64, 129, 1000}) {
      for (const float* rotary : {static_cast<const float*>(nullptr), table.data()}) {
        const AttentionView view{reach, rotary};
        Values out(static_cast<std::size_t>(516 * d));
        attention_forward(qkv.data(), offsets, heads, d, out.data(), view);
        const Values expected = plain_attention(qkv, offsets, heads, d, view);
        for (std::size_t i = 0; i < out.size(); ++i)
          ASSERT_NEAR(out[i], expected[i], 3e-6) << "d " << d << " reach " << reach << " at " << i;
      }
    }
  }
}

TEST(EncoderAttention, BackwardInWindowsAndWithTurnsEqualsDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 203};  // four blocks of queries
  const std::int64_t heads = 2, d = 12;
  const Values qkv = random_values(static_cast<std::size_t>(203 * 3 * d), 2);
  const Values weights = random_values(static_cast<std::size_t>(203 * d), 3);
  const Values table = turns(200, d / heads);
  for (const std::int64_t reach : {-1, 3, 20}) {
    const AttentionView view{reach, table.data()};
    Values d_qkv(qkv.size());
    attention_backward(weights.data(), qkv.data(), offsets, heads, d, d_qkv.data(), view);
    Rng pick(5);
    for (int k = 0; k < 60; ++k) {
      const auto i = static_cast<std::size_t>(pick.below(qkv.size()));
      Values moved = qkv;
      moved[i] += 1e-2f;
      const double up = dot(plain_attention(moved, offsets, heads, d, view), weights);
      moved[i] -= 2e-2f;
      const double down = dot(plain_attention(moved, offsets, heads, d, view), weights);
      ASSERT_NEAR(d_qkv[i], (up - down) / 2e-2, 3e-3) << "reach " << reach << " at " << i;
    }
  }
}

TEST(EncoderAttention, BackwardEqualsDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 70};  // the second row takes two blocks of queries
  const std::int64_t heads = 2, d = 12;
  const Values qkv = random_values(static_cast<std::size_t>(70 * 3 * d), 2);
  const Values weights = random_values(static_cast<std::size_t>(70 * d), 3);
  Values d_qkv(qkv.size());
  attention_backward(weights.data(), qkv.data(), offsets, heads, d, d_qkv.data());
  Rng pick(5);
  for (int k = 0; k < 300; ++k) {
    const auto i = static_cast<std::size_t>(pick.below(qkv.size()));
    Values moved = qkv;
    moved[i] += 1e-2f;
    const double up = dot(plain_attention(moved, offsets, heads, d), weights);
    moved[i] -= 2e-2f;
    const double down = dot(plain_attention(moved, offsets, heads, d), weights);
    ASSERT_NEAR(d_qkv[i], (up - down) / 2e-2, 2e-3) << i;
  }
}

TEST(EncoderNorm, ForwardNormalisesAndBackwardEqualsDifferences) {
  const std::int64_t tokens = 3, d = 13;  // not a multiple of 8
  const auto n = static_cast<std::size_t>(tokens * d);
  const Values h = random_values(n, 4), residual = random_values(n, 5), gamma = random_values(13, 6),
               beta = random_values(13, 7), bias = random_values(13, 8), weights = random_values(n, 9);
  for (const double p : {0.0, 0.3}) {
    const DropoutSite site{77, p};
    Values x_hat(n), y(n), rstd(3);
    const auto loss = [&](const Values& hh, const Values& rr, const Values& gg, const Values& bb,
                          const Values& bias_now) {
      x_hat = hh;
      add_norm_forward(x_hat.data(), bias_now.data(), rr.data(), gg.data(), bb.data(), tokens, d, 1e-5f, site, y.data(),
                       rstd.data());
      return dot(y, weights);
    };
    loss(h, residual, gamma, beta, bias);
    const Values kept_x_hat = x_hat, kept_rstd = rstd;
    for (std::int64_t t = 0; t < tokens; ++t) {
      double mean = 0, square = 0;
      for (std::int64_t c = 0; c < d; ++c) mean += kept_x_hat[static_cast<std::size_t>(t * d + c)] / 13.0;
      for (std::int64_t c = 0; c < d; ++c)
        square += std::pow(kept_x_hat[static_cast<std::size_t>(t * d + c)], 2) / 13.0;
      EXPECT_NEAR(mean, 0, 1e-6);
      EXPECT_NEAR(square, 1, 1e-4);
    }
    Values ds(n), dh(n), dg(13), db(13), dbias(13);
    add_norm_backward(weights.data(), kept_x_hat.data(), kept_rstd.data(), gamma.data(), tokens, d, site, ds.data(),
                      p > 0 ? dh.data() : nullptr, dg.data(), db.data(), dbias.data());
    expect_gradient(
        h, p > 0 ? dh : ds, [&](const Values& v) { return loss(v, residual, gamma, beta, bias); }, 1e-3f);
    expect_gradient(
        residual, ds, [&](const Values& v) { return loss(h, v, gamma, beta, bias); }, 1e-3f);
    expect_gradient(gamma, dg, [&](const Values& v) { return loss(h, residual, v, beta, bias); });
    expect_gradient(beta, db, [&](const Values& v) { return loss(h, residual, gamma, v, bias); });
    expect_gradient(
        bias, dbias, [&](const Values& v) { return loss(h, residual, gamma, beta, v); }, 1e-3f);
  }
}

TEST(EncoderGelu, IsTheExactFormAndItsGradient) {
  Values u, bias = {0.25f};
  for (int i = -80; i <= 80; ++i) u.push_back(static_cast<float>(i) / 10);
  const auto n = static_cast<std::int64_t>(u.size());
  Values y(u.size()), du(u.size());
  gelu_forward(u.data(), bias.data(), n, 1, y.data());
  const Values ones(u.size(), 1);
  gelu_backward(ones.data(), u.data(), bias.data(), n, 1, du.data());
  for (std::size_t i = 0; i < u.size(); ++i) {
    const double x = static_cast<double>(u[i]) + 0.25;
    const double cdf = 0.5 * std::erfc(-x / std::sqrt(2.0));
    EXPECT_NEAR(y[i], x * cdf, 1.5e-6) << x;
    EXPECT_NEAR(du[i], cdf + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi), 1.5e-6) << x;
  }
}

TEST(EncoderPooling, MeansAndEmbeddingsAddUp) {
  const std::vector<std::int64_t> offsets = {0, 2, 3};
  const Values x = {1, 2, 3, 4, 5, 6};
  Values out(4), dx(6);
  mean_pool_forward(x.data(), offsets, 2, out.data());
  EXPECT_EQ(out, (Values{2, 3, 5, 6}));
  mean_pool_backward(out.data(), offsets, 2, dx.data());
  EXPECT_EQ(dx, (Values{1, 1.5, 1, 1.5, 5, 6}));

  const std::vector<std::int32_t> ids = {1, 0, 1}, places = {0, 1, 0};
  const Values words = {1, 2, 3, 4}, positions = {10, 20, 30, 40}, type = {100, 200};
  Values sum(6);
  embed_forward(words.data(), ids, positions.data(), places, type.data(), {}, 2, sum.data());
  EXPECT_EQ(sum, (Values{113, 224, 131, 242, 113, 224}));
  Values d_words(4), d_positions(4), d_type(2);
  embed_backward(x.data(), ids, places, {}, 2, d_words.data(), d_positions.data(), d_type.data());
  EXPECT_EQ(d_words, (Values{3, 4, 6, 8}));  // word 1 stands twice
  EXPECT_EQ(d_positions, (Values{6, 8, 3, 4}));
  EXPECT_EQ(d_type, (Values{9, 12}));
}

TEST(EncoderDropout, KeepsTheShareAndTheMeanAndIsRepeatable) {
  const Values x(100000, 1);
  Values y(x.size()), again(x.size());
  apply_dropout(x.data(), 100000, {5, 0.2}, y.data());
  apply_dropout(x.data(), 100000, {5, 0.2}, again.data());
  EXPECT_EQ(y, again);
  const auto zeros = static_cast<double>(std::count(y.begin(), y.end(), 0.0f));
  EXPECT_NEAR(zeros / 1e5, 0.2, 0.01);
  EXPECT_NEAR(dot(y, x) / 1e5, 1, 0.01);
  apply_dropout(x.data(), 100000, {6, 0.2}, again.data());
  EXPECT_NE(y, again);
}

}  // namespace
}  // namespace tailor::tune
