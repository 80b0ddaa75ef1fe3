#include "infer/packed_matrix.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "core/rng.h"

namespace tailor {
namespace {

struct Aligned {
  explicit Aligned(std::size_t bytes)
      : data(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}))), size(bytes) {}
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() { ::operator delete (data, std::align_val_t{64}); }
  std::byte* data;
  std::size_t size;
};

struct Format {
  PackedFormat ours;
  ggml_type theirs;
};
constexpr Format kFormats[] = {{PackedFormat::kQ8_0, GGML_TYPE_Q8_0},
                               {PackedFormat::kQ4_0, GGML_TYPE_Q4_0},
                               {PackedFormat::kQ4_1, GGML_TYPE_Q4_1}};

std::vector<float> random_values(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& x : out) x = static_cast<float>(rng.uniform() * 2 - 1);
  return out;
}

/// A matrix as ggml quantizes it.
std::vector<std::byte> quantized(ggml_type type, std::int64_t rows, std::int64_t width) {
  const std::vector<float> values = random_values(rows * width, 3);
  std::vector<std::byte> out(ggml_row_size(type, width) * static_cast<std::size_t>(rows));
  ggml_quantize_chunk(type, values.data(), out.data(), 0, rows, width, nullptr);
  return out;
}

TEST(PackedMatrix, PackingKeepsEveryBit) {
  for (const Format& f : kFormats) {
    const std::int64_t rows = 48, width = 96;
    const std::vector<std::byte> from = quantized(f.theirs, rows, width);
    ASSERT_EQ(packed_bytes(f.ours, rows, width), from.size());
    std::vector<std::byte> packed(from.size()), back(from.size());
    pack(f.ours, rows, width, from.data(), packed.data());
    EXPECT_NE(packed, from);
    unpack(f.ours, rows, width, packed.data(), back.data());
    EXPECT_EQ(back, from) << ggml_type_name(f.theirs);
  }
}

TEST(PackedMatrix, Shapes) {
  EXPECT_TRUE(packed_shape(16, 32));
  EXPECT_FALSE(packed_shape(24, 32));
  EXPECT_FALSE(packed_shape(16, 48));
  EXPECT_FALSE(packed_shape(0, 32));
}

/// Against the product of the numbers that both sides stand for, in double precision.
TEST(PackedMatrix, ProductsAreThoseOfTheNumbers) {
  if (!packed_products()) GTEST_SKIP() << "this processor has no AVX-512 VNNI";
  for (const Format& f : kFormats) {
    for (const auto& [rows, width] :
         {std::pair<std::int64_t, std::int64_t>{16, 32}, {48, 576}, {176, 96}, {80, 1536}}) {
      const std::vector<std::byte> theirs = quantized(f.theirs, rows, width);
      const Aligned packed(theirs.size());
      pack(f.ours, rows, width, theirs.data(), packed.data);
      std::vector<float> weights(static_cast<std::size_t>(rows * width));
      ggml_get_type_traits(f.theirs)->to_float(theirs.data(), weights.data(), rows * width);
      for (const std::int64_t tokens : {1, 2, 3, 4, 5, 7, 10, 16, 33}) {
        std::vector<float> values = random_values(tokens * width, 9);
        for (std::int64_t i = 0; i < 32; ++i) values[static_cast<std::size_t>(i)] = 0;  // a block without a factor
        for (const int threads : {1, 3}) {
          std::vector<float> out(static_cast<std::size_t>(tokens * rows), 99.0f);
          multiply({f.ours, rows, width, packed.data}, values.data(), tokens, out.data(), threads);
          for (std::int64_t t = 0; t < tokens; ++t) {
            for (std::int64_t r = 0; r < rows; ++r) {
              double sum = 0;
              for (std::int64_t b = 0; b < width; b += 32) {  // as quantize() is to round
                float most = 0;
                for (std::int64_t i = b; i < b + 32; ++i)
                  most = std::max(most, std::abs(values[static_cast<std::size_t>(t * width + i)]));
                const float scale = most > 0 ? 127.0f / most : 0.0f;
                for (std::int64_t i = b; i < b + 32; ++i)
                  sum += static_cast<double>(weights[static_cast<std::size_t>(r * width + i)]) *
                         static_cast<double>(std::nearbyint(values[static_cast<std::size_t>(t * width + i)] * scale)) *
                         static_cast<double>(most) / 127.0;
              }
              ASSERT_NEAR(out[static_cast<std::size_t>(t * rows + r)], sum, 2e-4)
                  << ggml_type_name(f.theirs) << ' ' << rows << 'x' << width << ", token " << t << " of " << tokens
                  << ", row " << r;
            }
          }
        }
      }
    }
  }
}

TEST(PackedMatrix, ATokensProductDoesNotDependOnItsCompany) {
  if (!packed_products()) GTEST_SKIP() << "this processor has no AVX-512 VNNI";
  const std::int64_t rows = 112, width = 256, tokens = 23;
  for (const Format& f : kFormats) {
    const std::vector<std::byte> theirs = quantized(f.theirs, rows, width);
    const Aligned packed(theirs.size());
    pack(f.ours, rows, width, theirs.data(), packed.data);
    const PackedMatrix matrix{f.ours, rows, width, packed.data};
    const std::vector<float> values = random_values(tokens * width, 4);
    std::vector<float> together(static_cast<std::size_t>(tokens * rows)), alone(static_cast<std::size_t>(rows));
    multiply(matrix, values.data(), tokens, together.data(), 2);
    for (std::int64_t t = 0; t < tokens; ++t) {
      multiply(matrix, values.data() + t * width, 1, alone.data(), 1);
      EXPECT_EQ(std::memcmp(alone.data(), together.data() + t * rows, alone.size() * sizeof(float)), 0) << t;
    }
  }
}

}  // namespace
}  // namespace tailor
