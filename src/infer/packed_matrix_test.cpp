#include "infer/packed_matrix.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "core/rng.h"
#include "infer/packed_kernel.h"
#include "infer/processor.h"

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

struct Named {
  const char* name;
  const packed::Kernel* kernel;
};

/// Those that this processor runs.
std::vector<Named> kernels() {
  std::vector<Named> out;
  if (runs(InstructionSet::kAvx2)) out.push_back({"avx2", &packed::kernel_avx2()});
  if (runs(InstructionSet::kVnni)) out.push_back({"vnni", &packed::kernel_vnni()});
  return out;
}

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

/// [token][row], of the numbers that both sides stand for, in double precision.
std::vector<double> products(const std::vector<float>& weights, std::int64_t rows, std::int64_t width,
                             const std::vector<float>& values) {
  std::vector<double> rounded(values.size());  // as quantize() is to do it
  for (std::size_t b = 0; b < values.size(); b += 32) {
    float most = 0;
    for (std::size_t i = b; i < b + 32; ++i) most = std::max(most, std::abs(values[i]));
    const float scale = most > 0 ? 127.0f / most : 0.0f;
    for (std::size_t i = b; i < b + 32; ++i)
      rounded[i] = static_cast<double>(std::nearbyint(values[i] * scale)) * static_cast<double>(most) / 127.0;
  }
  std::vector<double> out;
  for (auto x = rounded.begin(); x != rounded.end(); x += width) {
    for (std::int64_t r = 0; r < rows; ++r)
      out.push_back(std::inner_product(x, x + width, weights.begin() + r * width, 0.0));
  }
  return out;
}

TEST(PackedMatrix, ProductsAreThoseOfTheNumbers) {
  if (!packed_products()) GTEST_SKIP() << "this processor has neither AVX2 nor AVX-512 VNNI";
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
        const std::vector<double> expected = products(weights, rows, width, values);
        for (const Named& k : kernels()) {
          for (const int threads : {1, 3}) {
            std::vector<float> out(static_cast<std::size_t>(tokens * rows), 99.0f);
            packed::multiply({f.ours, rows, width, packed.data}, values.data(), tokens, out.data(), threads, *k.kernel);
            for (std::size_t i = 0; i < out.size(); ++i)
              ASSERT_NEAR(out[i], expected[i], 2e-4) << k.name << ' ' << ggml_type_name(f.theirs) << ' ' << rows << 'x'
                                                     << width << ", " << tokens << " tokens, number " << i;
          }
        }
      }
    }
  }
}

/// The largest numbers that the formats hold: what is summed in 16 bits must fit.
TEST(PackedMatrix, TheLargestNumbersFit) {
  if (!packed_products()) GTEST_SKIP() << "this processor has neither AVX2 nor AVX-512 VNNI";
  const std::int64_t rows = 16, width = 64, tokens = 7;
  for (const Format& f : kFormats) {
    for (const unsigned quant : {0x00U, 0x7FU, 0x80U, 0x81U, 0xFFU}) {
      std::vector<std::byte> theirs(ggml_row_size(f.theirs, width) * rows, static_cast<std::byte>(quant));
      const std::size_t block = ggml_row_size(f.theirs, 32), head = f.ours == PackedFormat::kQ4_1 ? 4 : 2;
      for (std::size_t at = 0; at < theirs.size(); at += block) {  // factors of 1
        for (std::size_t i = 0; i < head; i += 2) std::memcpy(&theirs[at + i], "\x00\x3C", 2);
      }
      const Aligned packed(theirs.size());
      pack(f.ours, rows, width, theirs.data(), packed.data);
      std::vector<float> weights(static_cast<std::size_t>(rows * width));
      ggml_get_type_traits(f.theirs)->to_float(theirs.data(), weights.data(), rows * width);
      for (const float sign : {1.0f, -1.0f}) {
        const std::vector<float> values(static_cast<std::size_t>(tokens * width), sign * 127.0f);
        const std::vector<double> expected = products(weights, rows, width, values);
        for (const Named& k : kernels()) {
          std::vector<float> out(static_cast<std::size_t>(tokens * rows));
          packed::multiply({f.ours, rows, width, packed.data}, values.data(), tokens, out.data(), 1, *k.kernel);
          for (std::size_t i = 0; i < out.size(); ++i)
            ASSERT_EQ(out[i], expected[i]) << k.name << ' ' << ggml_type_name(f.theirs) << ' ' << quant;
        }
      }
    }
  }
}

TEST(PackedMatrix, ATokensProductDoesNotDependOnItsCompanyNorOnTheProcessor) {
  if (!packed_products()) GTEST_SKIP() << "this processor has neither AVX2 nor AVX-512 VNNI";
  const std::int64_t rows = 112, width = 256, tokens = 23;
  for (const Format& f : kFormats) {
    const std::vector<std::byte> theirs = quantized(f.theirs, rows, width);
    const Aligned packed(theirs.size());
    pack(f.ours, rows, width, theirs.data(), packed.data);
    const PackedMatrix matrix{f.ours, rows, width, packed.data};
    const std::vector<float> values = random_values(tokens * width, 4);
    std::vector<float> expected(static_cast<std::size_t>(tokens * rows)), out(expected.size());
    multiply(matrix, values.data(), tokens, expected.data(), 2);
    for (const Named& k : kernels()) {
      packed::multiply(matrix, values.data(), tokens, out.data(), 1, *k.kernel);
      EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << k.name;
      for (std::int64_t t = 0; t < tokens; ++t)
        packed::multiply(matrix, values.data() + t * width, 1, out.data() + t * rows, 1, *k.kernel);
      EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << k.name << ", one by one";
    }
  }
}

}  // namespace
}  // namespace tailor
