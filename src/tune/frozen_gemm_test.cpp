#include "tune/frozen_gemm.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/rng.h"

namespace tailor::tune::decoder {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, std::uint64_t stream) {
  at::Tensor t = at::empty(shape, at::kFloat);
  Rng rng(3, stream);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = static_cast<float>(rng.normal());
  return t;
}

/// A matrix in blocks, and what they say as f32.
struct Stored {
  Stored(std::int64_t rows, std::int64_t columns, ggml_type type, std::uint64_t stream) {
    const at::Tensor values = random_tensor({rows, columns}, stream);
    const std::size_t row_bytes = ggml_row_size(type, columns);
    bytes.resize(row_bytes * static_cast<std::size_t>(rows));
    ggml_quantize_chunk(type, values.data_ptr<float>(), bytes.data(), 0, rows, columns, nullptr);
    matrix = {type, bytes.data(), row_bytes, rows, columns};
    f32 = at::empty({rows, columns}, at::kFloat);
    if (type == GGML_TYPE_F32) {
      f32.copy_(values);
    } else {
      ggml_get_type_traits(type)->to_float(bytes.data(), f32.data_ptr<float>(), rows * columns);
    }
  }
  std::vector<char> bytes;
  FrozenMatrix matrix;
  at::Tensor f32;
};

double worst(const at::Tensor& a, const at::Tensor& b) {
  return at::max(at::abs(a - b)).item<double>();
}

const ggml_type kTypes[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                            GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_Q6_K, GGML_TYPE_Q4_K};

TEST(FrozenProduct, EqualsPlainProductsForEveryTypeAndNumberOfRows) {
  for (const ggml_type type : kTypes) {
    const Stored first(64, 768, type, 1);
    const Stored second(32, 768, type, 2);
    ASSERT_TRUE(fast_gemm_suits(first.matrix));
    const at::Tensor w = at::cat({first.f32, second.f32});
    const at::Tensor b = random_tensor({32, 4}, 3);
    for (const std::int64_t m : {1, 6, 13, 40}) {
      const at::Tensor x = random_tensor({m, 768}, 4);
      const at::Tensor h = random_tensor({m, 10}, 5);
      const at::Tensor residual = random_tensor({m, 96}, 6);
      at::Tensor y = at::empty({m, 96}, at::kFloat);
      const ProductPart parts[] = {{first.matrix}, {second.matrix, b.data_ptr<float>(), 4, 6}};
      frozen_product(parts, x.data_ptr<float>(), 768, m, h.data_ptr<float>(), 10, 0.5f, residual.data_ptr<float>(),
                     y.data_ptr<float>(), 96);
      at::Tensor expected = residual + at::mm(x, w.t());
      expected.narrow(1, 64, 32).add_(at::mm(h.narrow(1, 6, 4), b.t()), 0.5);
      EXPECT_LT(worst(y, expected), 1e-3) << ggml_type_name(type) << ", " << m << " rows";

      const at::Tensor dy = random_tensor({m, 96}, 7);
      const at::Tensor a = random_tensor({10, 768}, 8);
      at::Tensor dx = at::empty({m, 768}, at::kFloat);
      frozen_product_backward(parts, dy.data_ptr<float>(), 96, m, h.data_ptr<float>(), 10, a.data_ptr<float>(),
                              dx.data_ptr<float>(), 768);
      EXPECT_LT(worst(dx, at::mm(dy, w) + at::mm(h, a)), 1e-3) << ggml_type_name(type) << ", " << m << " rows";
    }
  }
}

TEST(FrozenProduct, UnpackedRowsEqualGgml) {
  for (const ggml_type type : kTypes) {
    const Stored w(16, 512, type, 1);
    at::Tensor row = at::empty({256}, at::kFloat);
    unpack_row(w.matrix, 3, 256, 256, row.data_ptr<float>());
    EXPECT_LT(worst(row, w.f32[3].narrow(0, 256, 256)), 1e-6) << ggml_type_name(type);
  }
}

TEST(FrozenProduct, RowsOfBf16HaveAnyLength) {
  const Stored w(3, 45, GGML_TYPE_BF16, 1);
  for (const std::int64_t n : {1, 8, 13, 45}) {
    at::Tensor row = at::empty({n}, at::kFloat);
    unpack_row(w.matrix, 2, 0, n, row.data_ptr<float>());
    EXPECT_TRUE(at::equal(row, w.f32[2].narrow(0, 0, n))) << n;
  }
}

TEST(FrozenProduct, OddShapesAreLeftToAten) {
  EXPECT_FALSE(fast_gemm_suits(Stored(24, 64, GGML_TYPE_F32, 1).matrix));
  EXPECT_FALSE(fast_gemm_suits(Stored(32, 40, GGML_TYPE_F32, 1).matrix));
}

TEST(ThinProduct, EqualsPlainProducts) {
  for (const auto& [m, n, k] : std::vector<std::array<std::int64_t, 3>>{{70, 16, 33}, {12, 200, 33}, {5, 3, 2}}) {
    const at::Tensor a = random_tensor({k, m}, 1);  // read across
    const at::Tensor b = random_tensor({k, n}, 2);
    at::Tensor c = random_tensor({m, n}, 3);
    const at::Tensor expected = c + at::mm(a.t(), b);
    thin_product(m, n, k, a.data_ptr<float>(), 1, m, b.data_ptr<float>(), n, c.data_ptr<float>(), n, true);
    EXPECT_LT(worst(c, expected), 1e-4);
  }
}

}  // namespace
}  // namespace tailor::tune::decoder
