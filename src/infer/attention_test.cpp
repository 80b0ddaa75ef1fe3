#include "infer/attention.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/rng.h"
#include "infer/attention_kernel.h"
#include "infer/processor.h"

namespace tailor {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

/// Queries, keys, values and a mask in the layouts that llama.cpp gives them, with gaps between rows.
struct Case {
  int tokens, cells, heads, kv_heads, key_width, value_width;
  float softcap = 0;
  std::vector<float> queries, mask;
  std::vector<ggml_fp16_t> keys, values, half_mask;

  Case(int t, int c, int h, int kv, int kw, int vw, std::uint64_t seed)
      : tokens(t), cells(c), heads(h), kv_heads(kv), key_width(kw), value_width(vw) {
    Rng rng(seed);
    const auto random = [&] { return static_cast<float>(rng.uniform() * 4 - 2); };
    queries.resize(size(t, h, kw));
    for (float& x : queries) x = random();
    keys.resize(size(c, kv, kw));
    values.resize(size(c, kv, vw));
    for (auto& x : keys) x = ggml_fp32_to_fp16(random());
    for (auto& x : values) x = ggml_fp32_to_fp16(random());
    mask.assign(size(t, c), kNever);
  }
  static std::size_t size(int a, int b, int c = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
  }
  float& at(int token, int cell) { return mask[size(token, cells) + static_cast<std::size_t>(cell)]; }

  AttentionCall call(float* out) {
    half_mask.resize(mask.size());
    for (std::size_t i = 0; i < mask.size(); ++i) half_mask[i] = ggml_fp32_to_fp16(mask[i]);
    const auto bytes = [](const auto& v) { return reinterpret_cast<const char*>(v.data()); };
    return {.tokens = tokens,
            .cells = cells,
            .heads = heads,
            .kv_heads = kv_heads,
            .key_width = key_width,
            .value_width = value_width,
            .scale = 0.3f,
            .softcap = softcap,
            .queries = bytes(queries),
            .query_token = size(heads, key_width) * sizeof(float),
            .query_head = size(1, key_width) * sizeof(float),
            .keys = bytes(keys),
            .key_cell = size(kv_heads, key_width) * 2,
            .key_head = size(1, key_width) * 2,
            .values = bytes(values),
            .value_cell = size(kv_heads, value_width) * 2,
            .value_head = size(1, value_width) * 2,
            .mask = bytes(half_mask),
            .mask_token = size(1, cells) * 2,
            .out = out};
  }

  std::vector<double> expected() const {
    std::vector<double> out(size(tokens, heads, value_width));
    for (int t = 0; t < tokens; ++t) {
      for (int h = 0; h < heads; ++h) {
        const int kv = h / (heads / kv_heads);
        std::vector<double> scores(static_cast<std::size_t>(cells));
        double most = kNever, sum = 0;
        for (int c = 0; c < cells; ++c) {
          double x = 0;
          for (int d = 0; d < key_width; ++d)
            x += static_cast<double>(queries[(size(t, heads) + static_cast<std::size_t>(h)) * size(1, key_width) +
                                             static_cast<std::size_t>(d)]) *
                 static_cast<double>(
                     ggml_fp16_to_fp32(keys[(size(c, kv_heads) + static_cast<std::size_t>(kv)) * size(1, key_width) +
                                            static_cast<std::size_t>(d)]));
          x *= 0.3;
          if (softcap > 0) x = softcap * std::tanh(x / softcap);
          x += static_cast<double>(mask[size(t, cells) + static_cast<std::size_t>(c)]);
          scores[static_cast<std::size_t>(c)] = x;
          most = std::max(most, x);
        }
        if (most == static_cast<double>(kNever)) continue;
        for (double& x : scores) sum += x = std::exp(x - most);
        for (int c = 0; c < cells; ++c) {
          for (int d = 0; d < value_width; ++d)
            out[(size(t, heads) + static_cast<std::size_t>(h)) * size(1, value_width) + static_cast<std::size_t>(d)] +=
                scores[static_cast<std::size_t>(c)] / sum *
                static_cast<double>(
                    ggml_fp16_to_fp32(values[(size(c, kv_heads) + static_cast<std::size_t>(kv)) * size(1, value_width) +
                                             static_cast<std::size_t>(d)]));
        }
      }
    }
    return out;
  }
};

struct Named {
  std::string name;
  const attention::Kernel* kernel;
};

std::vector<Named> kernels() {
  std::vector<Named> out = {{"portable", &attention::kernel_portable()}};
  if (runs(InstructionSet::kAvx2)) out.push_back({"avx2", &attention::kernel_avx2()});
  if (runs(InstructionSet::kAvx512)) out.push_back({"avx512", &attention::kernel_avx512()});
  return out;
}

void expect_right(Case& c, const std::string& what) {
  const std::vector<double> expected = c.expected();
  for (const Named& k : kernels()) {
    for (const int threads : {1, 3}) {
      std::vector<float> out(expected.size(), 99.0f);
      attention::attend(c.call(out.data()), threads, *k.kernel);
      double worst = 0;
      for (std::size_t i = 0; i < out.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(out[i]) - expected[i]));
      EXPECT_LT(worst, 2e-5) << what << ", " << k.name << ", " << threads << " threads";
    }
  }
}

/// Chats over a shared beginning: everyone attends to the first cells, and each to some of the rest.
void share_beginning(Case& c, int shared, Rng& rng) {
  for (int t = 0; t < c.tokens; ++t) {
    for (int cell = 0; cell < c.cells; ++cell) {
      if (cell < shared || rng.below(static_cast<std::uint64_t>(c.tokens)) == 0) c.at(t, cell) = 0;
    }
  }
}

TEST(Attention, SharedBeginningsAndOwnCells) {
  Rng rng(7);
  for (const auto& [tokens, cells, heads, kv_heads, key_width, value_width, shared] :
       {std::array{16, 512, 9, 3, 64, 64, 300}, std::array{7, 256, 4, 4, 80, 80, 130},
        std::array{33, 256, 8, 1, 128, 64, 63}, std::array{64, 128, 2, 1, 16, 32, 65},
        std::array{5, 192, 64, 2, 48, 48, 100}, std::array{1, 256, 6, 2, 256, 256, 200}}) {
    Case c(tokens, cells, heads, kv_heads, key_width, value_width, 11);
    share_beginning(c, shared, rng);
    expect_right(c, std::to_string(tokens) + " tokens, " + std::to_string(key_width) + " wide");
  }
}

TEST(Attention, ChunkOfAPromptBesideAnswersOfOthers) {
  Case c(40, 256, 6, 2, 64, 64, 3);
  for (int t = 0; t < 32; ++t) {  // the chunk: what was before it, and its own beginning
    for (int cell = 64; cell < 164 + t; ++cell) c.at(t, cell) = 0;
  }
  for (int t = 32; t < 40; ++t) {  // each the cells of its sequence, among those of the others
    for (int cell = t - 32; cell < 64; cell += 8) c.at(t, cell) = 0;
  }
  expect_right(c, "a chunk and eight answers");
}

TEST(Attention, WhatTheMaskAddsAndWhoAttendsToNothing) {
  Case c(9, 128, 4, 2, 32, 32, 5);
  for (int t = 0; t < 9; ++t) {
    for (int cell = 0; cell < 128; ++cell) {
      if (t != 4) c.at(t, cell) = cell % 3 == 0 ? 0.0f : cell % 3 == 1 ? -0.25f * static_cast<float>(t) : kNever;
    }
  }
  expect_right(c, "a mask with slopes");
}

/// Token 0 of `c`, alone and with its cells elsewhere, is what it is in `c`, to the last bit.
void expect_alike(Case& c, int shared) {
  Rng rng(31);
  std::vector<int> places(static_cast<std::size_t>(c.cells));
  for (int i = 0; i < c.cells; ++i) places[static_cast<std::size_t>(i)] = i;
  std::vector<int> others(places.begin() + shared, places.end());
  rng.shuffle(others);
  std::copy(others.begin(), others.end(), places.begin() + shared);
  Case alone(1, c.cells, c.heads, c.kv_heads, c.key_width, c.value_width, 1);
  alone.softcap = c.softcap;
  std::copy_n(c.queries.begin(), alone.queries.size(), alone.queries.begin());
  for (int cell = 0; cell < c.cells; ++cell) {
    const auto from = static_cast<std::size_t>(cell), to = static_cast<std::size_t>(places[from]);
    const auto keys = Case::size(c.kv_heads, c.key_width), values = Case::size(c.kv_heads, c.value_width);
    std::copy_n(c.keys.begin() + static_cast<std::ptrdiff_t>(from * keys), keys,
                alone.keys.begin() + static_cast<std::ptrdiff_t>(to * keys));
    std::copy_n(c.values.begin() + static_cast<std::ptrdiff_t>(from * values), values,
                alone.values.begin() + static_cast<std::ptrdiff_t>(to * values));
    alone.at(0, static_cast<int>(to)) = c.at(0, cell);
  }
  for (const Named& k : kernels()) {
    std::vector<float> all(Case::size(c.tokens, c.heads, c.value_width)), one(Case::size(1, c.heads, c.value_width));
    AttentionCall call = c.call(all.data());
    call.shared_cells = shared;
    attention::attend(call, 2, *k.kernel);
    AttentionCall lone = alone.call(one.data());
    lone.shared_cells = shared;
    attention::attend(lone, 1, *k.kernel);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin())) << k.name << ", " << shared << " shared";
    const std::vector<double> expected = c.expected();
    double worst = 0;
    for (std::size_t i = 0; i < all.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(all[i]) - expected[i]));
    EXPECT_LT(worst, 2e-5) << k.name << ", " << shared << " shared";
  }
}

TEST(Attention, ATokenIsTheSameInAnyCompanyWhereItIsAskedFor) {
  Rng rng(17);
  for (const int shared : {0, 1, 5, 64, 75, 100}) {
    Case c(12, 256, 9, 3, 64, 64, 8);
    share_beginning(c, shared, rng);
    expect_alike(c, shared);
    Case wide(7, 192, 10, 2, 80, 48, 12);
    wide.softcap = 2;
    share_beginning(wide, shared, rng);
    expect_alike(wide, shared);
  }
}

TEST(Attention, ScoresAreCapped) {
  Case c(6, 128, 4, 1, 64, 64, 9);
  c.softcap = 1.5f;
  Rng rng(2);
  share_beginning(c, 70, rng);
  expect_right(c, "capped");
}

TEST(Attention, LargeScoresStayFinite) {
  Case c(12, 128, 3, 1, 64, 64, 21);
  for (float& q : c.queries) q *= 60;  // far beyond what e^x holds
  Rng rng(4);
  share_beginning(c, 90, rng);
  expect_right(c, "large scores");
}

}  // namespace
}  // namespace tailor
