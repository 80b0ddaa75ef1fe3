#include "infer/ggml_device.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "core/rng.h"
#include "infer/packed_weights.h"

namespace tailor {
namespace {

struct ContextFree {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
struct BackendFree {
  void operator()(ggml_backend_t b) const { ggml_backend_free(b); }
};
struct BufferFree {
  void operator()(ggml_backend_buffer_t b) const { ggml_backend_buffer_free(b); }
};

std::vector<float> computed(ggml_backend_t backend, ggml_cgraph* graph, const ggml_tensor* out) {
  EXPECT_EQ(ggml_backend_graph_compute(backend, graph), GGML_STATUS_SUCCESS);
  std::vector<float> values(static_cast<std::size_t>(ggml_nelements(out)));
  ggml_backend_tensor_get(out, values.data(), 0, ggml_nbytes(out));
  return values;
}

/// Attention as llama.cpp asks for it.
struct Graph {
  std::unique_ptr<ggml_context, ContextFree> context;
  std::unique_ptr<ggml_backend_buffer, BufferFree> buffer;
  ggml_tensor* out = nullptr;
  ggml_cgraph* graph = nullptr;

  Graph(int tokens, int cells, int heads, int kv_heads, int width, ggml_type type, float max_bias = 0) {
    context.reset(ggml_init({ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true}));
    ggml_context* c = context.get();
    ggml_tensor* q = ggml_new_tensor_3d(c, GGML_TYPE_F32, width, heads, tokens);
    ggml_tensor* k = ggml_new_tensor_3d(c, type, width, kv_heads, cells);
    ggml_tensor* v = ggml_new_tensor_3d(c, type, width, kv_heads, cells);
    ggml_tensor* mask = ggml_new_tensor_2d(c, GGML_TYPE_F16, cells, tokens);
    out = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), ggml_permute(c, k, 0, 2, 1, 3),
                              ggml_permute(c, v, 0, 2, 1, 3), mask, 0.125f, max_bias, 0);
    graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, out);
    buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(c, ggml_backend_cpu_buffer_type()));
    Rng rng(5);
    const auto fill = [&](ggml_tensor* t) {
      std::vector<float> values(static_cast<std::size_t>(ggml_nelements(t)));
      for (float& x : values) x = static_cast<float>(rng.uniform() * 2 - 1);
      std::vector<ggml_fp16_t> halves(values.size());
      ggml_fp32_to_fp16_row(values.data(), halves.data(), ggml_nelements(t));
      ggml_backend_tensor_set(t, t->type == GGML_TYPE_F32 ? static_cast<const void*>(values.data()) : halves.data(), 0,
                              ggml_nbytes(t));
    };
    fill(q);
    fill(k);
    fill(v);
    std::vector<ggml_fp16_t> allowed(static_cast<std::size_t>(cells * tokens), ggml_fp32_to_fp16(-INFINITY));
    for (std::size_t i = 0; i < allowed.size(); ++i) {
      const std::size_t cell = i % static_cast<std::size_t>(cells);
      if (cell < 100 || rng.below(4) == 0) allowed[i] = ggml_fp32_to_fp16(0);
    }
    ggml_backend_tensor_set(mask, allowed.data(), 0, ggml_nbytes(mask));
  }

  std::vector<float> compute(ggml_backend_t backend) const { return computed(backend, graph, out); }
};

ggml_backend_dev_t device() {
  use_own_kernels();
  use_own_kernels();  // once is enough
  set_own_attention(true);
  return ggml_backend_dev_by_name("Tailor");
}

TEST(GgmlDevice, AgreesWithGgml) {
  const Graph graph(20, 256, 9, 3, 64, GGML_TYPE_F16);
  ASSERT_NE(device(), nullptr);
  ASSERT_TRUE(ggml_backend_dev_supports_op(device(), graph.out));
  const std::unique_ptr<ggml_backend, BackendFree> ours(ggml_backend_dev_init(device(), nullptr)),
      cpu(ggml_backend_cpu_init());
  const std::vector<float> expected = graph.compute(cpu.get()), got = graph.compute(ours.get());
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], expected[i], 2e-3) << i;  // ggml rounds queries to 16 bits
}

/// A weight times the values of some tokens.
struct ProductGraph {
  std::unique_ptr<ggml_context, ContextFree> context;
  std::unique_ptr<ggml_backend_buffer, BufferFree> buffer;
  ggml_tensor *out = nullptr, *weight = nullptr;
  ggml_cgraph* graph = nullptr;

  ProductGraph(ggml_type type, int rows, int width, int tokens, std::uint64_t seed) {
    context.reset(ggml_init({ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true}));
    ggml_context* c = context.get();
    weight = ggml_new_tensor_2d(c, type, width, rows);
    ggml_tensor* x = ggml_new_tensor_2d(c, GGML_TYPE_F32, width, tokens);
    out = ggml_mul_mat(c, weight, x);
    graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, out);
    buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(c, ggml_backend_cpu_buffer_type()));
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    Rng rng(seed);
    std::vector<float> values(static_cast<std::size_t>(rows * width)), input(static_cast<std::size_t>(tokens * width));
    for (float& v : values) v = static_cast<float>(rng.uniform() * 2 - 1);
    for (float& v : input) v = static_cast<float>(rng.uniform() * 2 - 1);
    ggml_quantize_chunk(type, values.data(), weight->data, 0, rows, width, nullptr);
    ggml_backend_tensor_set(x, input.data(), 0, ggml_nbytes(x));
  }
  std::vector<float> compute(ggml_backend_t backend) const { return computed(backend, graph, out); }
};

TEST(GgmlDevice, AttentionIsOursWhereItIsAskedFor) {
  const Graph graph(4, 256, 4, 2, 64, GGML_TYPE_F16);
  const ggml_backend_dev_t ours = device();
  EXPECT_TRUE(ggml_backend_dev_supports_op(ours, graph.out));
  set_own_attention(false);
  EXPECT_FALSE(ggml_backend_dev_supports_op(ours, graph.out));
}

TEST(GgmlDevice, MultipliesAsGgmlDoes) {
  if (!packed_products()) GTEST_SKIP() << "this processor has neither AVX2 nor AVX-512 VNNI";
  for (const ggml_type type : {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1}) {
    const ProductGraph graph(type, 64, 256, 7, 1);
    ASSERT_TRUE(ggml_backend_dev_supports_op(device(), graph.out));
    const std::unique_ptr<ggml_backend, BackendFree> ours(ggml_backend_dev_init(device(), nullptr)),
        cpu(ggml_backend_cpu_init());
    const std::vector<float> expected = graph.compute(cpu.get()), got = graph.compute(ours.get());
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], expected[i], 0.02) << ggml_type_name(type) << ' ' << i;
    forget_packed_weights();
  }
}

TEST(GgmlDevice, AnotherModelAtTheSameAddressIsPackedAnew) {
  if (!packed_products()) GTEST_SKIP() << "this processor has neither AVX2 nor AVX-512 VNNI";
  const ProductGraph one(GGML_TYPE_Q8_0, 16, 32, 1, 1), other(GGML_TYPE_Q8_0, 16, 32, 1, 2);
  const std::shared_ptr<const PackedMatrix> held = packed_weight(one.weight);
  EXPECT_EQ(packed_weight(one.weight), held);
  EXPECT_NE(packed_weight(other.weight), held);
  std::memcpy(one.weight->data, other.weight->data, ggml_nbytes(one.weight));
  forget_packed_weights();
  EXPECT_EQ(std::memcmp(packed_weight(one.weight)->data, packed_weight(other.weight)->data, ggml_nbytes(one.weight)),
            0);
  EXPECT_NE(std::memcmp(held->data, packed_weight(one.weight)->data, ggml_nbytes(one.weight)),
            0);  // what was held stays
  forget_packed_weights();
}

TEST(GgmlDevice, ProductsWithWhatIsNotAQuantizedWeightStayWithGgml) {
  EXPECT_FALSE(ggml_backend_dev_supports_op(device(), ProductGraph(GGML_TYPE_F16, 64, 256, 1, 1).out));
  EXPECT_FALSE(ggml_backend_dev_supports_op(device(), ProductGraph(GGML_TYPE_Q8_0, 40, 256, 1, 1).out));
  const ProductGraph values(GGML_TYPE_Q8_0, 64, 256, 1, 1);  // no weight of a model
  ggml_backend_buffer_set_usage(values.buffer.get(), GGML_BACKEND_BUFFER_USAGE_COMPUTE);
  EXPECT_FALSE(ggml_backend_dev_supports_op(device(), values.out));
}

TEST(GgmlDevice, LeavesToGgmlWhatItDoesNotTake) {
  for (const Graph& graph : {Graph(4, 256, 4, 2, 64, GGML_TYPE_F32), Graph(4, 256, 4, 2, 40, GGML_TYPE_F16),
                             Graph(4, 256, 4, 2, 64, GGML_TYPE_F16, 8.0f), Graph(4, 200, 4, 2, 64, GGML_TYPE_F16)})
    EXPECT_FALSE(ggml_backend_dev_supports_op(device(), graph.out));
}

}  // namespace
}  // namespace tailor
