#include "core/decoder_layout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/rng.h"

namespace tailor {
namespace {

/// Every family, and the options that change tensors.
std::vector<DecoderSizes> all_sizes() {
  std::vector<DecoderSizes> all;
  for (const DecoderFamily family : kDecoderFamilies) {
    const bool one_group = family == DecoderFamily::kGpt2 || family == DecoderFamily::kGptNeoX ||
                           family == DecoderFamily::kBloom || family == DecoderFamily::kMpt;
    DecoderSizes s{.family = family, .vocabulary = 11, .hidden = 24, .layers = 2, .feed_forward = 10, .heads = 6};
    s.kv_heads = one_group ? 6 : 2;
    s.head_dim = 4;
    s.positions = 7;
    all.push_back(s);
    s.tied_output = true;
    if (family == DecoderFamily::kLlama) s.attention_bias = s.feed_forward_bias = true;
    if (family == DecoderFamily::kFalcon) s.two_norms = true;
    all.push_back(s);
    if (family == DecoderFamily::kFalcon) {
      s.kv_heads = 1;
      all.push_back(s);
    }
  }
  return all;
}

TEST(DecoderLayout, NamesAreUniqueAndKnown) {
  for (const DecoderSizes& s : all_sizes()) {
    EXPECT_EQ(family_of_architecture(gguf_architecture(s.family)), s.family);
    std::set<std::string> hf, gguf;
    for (const DecoderTensor& t : decoder_tensors(s)) {
      EXPECT_TRUE(hf.insert(t.hugging_face).second) << t.hugging_face;
      EXPECT_TRUE(gguf.insert(t.gguf).second) << t.gguf;
    }
    EXPECT_EQ(gguf.contains("output.weight"), !s.tied_output);
  }
  EXPECT_EQ(family_of_model_type("mistral"), DecoderFamily::kLlama);
  EXPECT_EQ(family_of_model_type("gemma3_text"), DecoderFamily::kGemma3);
  EXPECT_EQ(family_of_model_type(""), std::nullopt);
  EXPECT_EQ(family_of_architecture("bert"), std::nullopt);
  EXPECT_NE(decoder_model_types().find("gpt_neox, falcon"), std::string::npos);
}

TEST(DecoderLayout, BothDirectionsAreInverse) {
  Rng rng(3);
  for (const DecoderSizes& s : all_sizes()) {
    for (const DecoderTensor& t : decoder_tensors(s)) {
      std::vector<float> values(static_cast<std::size_t>(t.elements()));
      // Multiples of 2^-10: a shift by one is exact.
      for (float& v : values) v = std::round(static_cast<float>(rng.normal()) * 1024) / 1024;
      const std::vector<float> there = to_gguf(t, values);
      EXPECT_EQ(to_hugging_face(t, there), values) << t.hugging_face;
      EXPECT_EQ(to_gguf(t, to_hugging_face(t, values)), values) << t.hugging_face;
      EXPECT_EQ(std::multiset<float>(values.begin(), values.end()).size(), values.size());
      const std::string_view bytes(reinterpret_cast<const char*>(values.data()), values.size() * 4);
      for (const std::size_t element : {std::size_t{4}, std::size_t{2}}) {  // halves of floats are elements as well
        if (element == 2 && t.elements() % 2 != 0) continue;
        const std::string_view part = bytes.substr(0, static_cast<std::size_t>(t.elements()) * element);
        EXPECT_EQ(bytes_to_hugging_face(t, bytes_to_gguf(t, part, element), element), part) << t.hugging_face;
      }
      for (std::int64_t row = 0; row < t.gguf_shape()[0]; ++row) {
        EXPECT_EQ(t.rows.gguf_row(t.rows.hugging_face_row(row)), row) << t.hugging_face;
      }
    }
  }
}

/// q [heads, 2, dim / 2] becomes [heads, dim / 2, 2].
TEST(DecoderLayout, RotaryPairsBecomeNeighbours) {
  const RowOrder order{RowOrder::Kind::kRotary, 2, 2, 4};
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < 8; ++i) rows.push_back(order.hugging_face_row(i));
  EXPECT_EQ(rows, (std::vector<std::int64_t>{0, 2, 1, 3, 4, 6, 5, 7}));
}

/// Two groups of two q heads, one k and one v head each; heads of one row.
TEST(DecoderLayout, GroupsAreTakenApart) {
  const RowOrder order{RowOrder::Kind::kGrouped, 4, 2, 1};
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < 8; ++i) rows.push_back(order.hugging_face_row(i));
  EXPECT_EQ(rows, (std::vector<std::int64_t>{0, 1, 4, 5, 2, 6, 3, 7}));
  const RowOrder heads{RowOrder::Kind::kGrouped, 2, 2, 2};  // GPT-NeoX, BLOOM: q k v of each head
  rows.clear();
  for (std::int64_t i = 0; i < 12; ++i) rows.push_back(heads.hugging_face_row(i));
  EXPECT_EQ(rows, (std::vector<std::int64_t>{0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11}));
}

TEST(DecoderLayout, GemmasNormsAreShifted) {
  DecoderTensor norm;
  norm.shape = {3};
  norm.shift = 1;
  EXPECT_EQ(to_gguf(norm, std::vector<float>{0, -0.5f, 2}), (std::vector<float>{1, 0.5f, 3}));
  EXPECT_TRUE(survives_gguf(norm, std::vector<float>{0, -0.5f, 2}));
  EXPECT_FALSE(survives_gguf(norm, std::vector<float>{0, 1e-9f, 2}));
  EXPECT_FALSE(survives_gguf(norm, std::vector<float>{-0.0f, 1, 2}));
  // What to_gguf() gave comes back, however the first step rounded.
  Rng rng(5);
  for (int i = 0; i < 1000; ++i) {
    const std::vector<float> x = {static_cast<float>(rng.normal()), static_cast<float>(1e-4 * rng.normal()), -0.999f};
    const std::vector<float> g = to_gguf(norm, x);
    EXPECT_EQ(to_gguf(norm, to_hugging_face(norm, g)), g);
  }
}

/// (B A) x is the same layer's output whether rows are moved before or after the product.
TEST(DecoderLayout, AdaptersFollowTheRowsOfTheirMatrix) {
  for (const DecoderSizes& s : all_sizes()) {
    for (const DecoderModule& m : decoder_modules(s)) {
      Rng rng(7);
      std::vector<float> b(static_cast<std::size_t>(m.out * 2));
      for (float& v : b) v = static_cast<float>(rng.normal());
      const std::vector<float> moved = rows_to_gguf(m.rows, b, 2);
      EXPECT_EQ(rows_to_hugging_face(m.rows, moved, 2), b);
      for (std::int64_t row = 0; row < m.out; ++row) {
        EXPECT_EQ(moved[static_cast<std::size_t>(2 * row + 1)],
                  b[static_cast<std::size_t>(2 * m.rows.hugging_face_row(row) + 1)]);
      }
      EXPECT_EQ(m.fan_in_fan_out, s.family == DecoderFamily::kGpt2 && !m.is_output);
    }
  }
  const auto modules = decoder_modules(all_sizes().front());
  EXPECT_EQ(modules[0].hugging_face, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(modules[0].gguf, "blk.0.attn_q");
  EXPECT_EQ(modules.back().hugging_face, "lm_head");
}

}  // namespace
}  // namespace tailor
