#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tune/flat_update.h"
#include "tune/vector_math.h"

namespace tailor::tune {
namespace {

constexpr std::int64_t kPageFloats = 1024;  // of 4,096 bytes
constexpr std::int64_t kBlock = 16384;  // floats summed on their own, so that the norm does not depend on the threads

class CpuUpdate final : public FlatUpdate {
 public:
  double norm(const at::Tensor& x) const override {
    const std::int64_t n = x.numel();
    const float* g = x.data_ptr<float>();
    std::vector<double> sums(static_cast<std::size_t>((n + kBlock - 1) / kBlock), 0);
    at::parallel_for(0, static_cast<std::int64_t>(sums.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        const std::int64_t last = std::min(n, (b + 1) * kBlock);
        simd::F8 total = {};
        for (std::int64_t i = b * kBlock; i < last; i += 8) {
          const simd::F8 part = simd::load_part(g + i, last - i);
          total += part * part;
        }
        sums[static_cast<std::size_t>(b)] = simd::sum(total);
      }
    });
    double total = 0;
    for (const double s : sums) total += s;
    return std::sqrt(total);
  }

  void adam(at::Tensor p_of, at::Tensor g_of, at::Tensor m_of, at::Tensor v_of, const AdamStep& step) const override {
    float* p = p_of.data_ptr<float>();
    float* g = g_of.data_ptr<float>();
    float* m = m_of.data_ptr<float>();
    float* v = v_of.data_ptr<float>();
    const AdamStep s = step;
    at::parallel_for(s.begin, s.end, kBlock, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const float gi = g[i] * s.scale;
        const float mi = s.b1 * m[i] + (1 - s.b1) * gi;
        const float vi = s.b2 * v[i] + (1 - s.b2) * gi * gi;
        m[i] = mi;
        v[i] = vi;
        p[i] = s.keep * p[i] - s.size * mi / (std::sqrt(vi) * s.correction + s.eps);
        g[i] = 0;
      }
    });
  }

  void average(at::Tensor average_of, const at::Tensor& p_of, float keep, bool first) const override {
    float* average = average_of.data_ptr<float>();
    const float* p = p_of.data_ptr<float>();
    at::parallel_for(0, p_of.numel(), kBlock, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) average[i] = first ? p[i] : keep * average[i] + (1 - keep) * p[i];
    });
  }

  void swap(at::Tensor a_of, at::Tensor b_of) const override {
    float* a = a_of.data_ptr<float>();
    float* b = b_of.data_ptr<float>();
    at::parallel_for(0, a_of.numel(), kBlock, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) std::swap(a[i], b[i]);
    });
  }

  void touch(at::Tensor x) const override {
    // Zeros that were never written share one page.
    auto* values = x.data_ptr<float>();
    for (std::int64_t i = 0; i < x.numel(); i += kPageFloats) *const_cast<volatile float*>(values + i) = values[i];
  }
};

}  // namespace

const FlatUpdate& flat_update_cpu() {
  static const CpuUpdate kUpdate;
  return kUpdate;
}

}  // namespace tailor::tune
