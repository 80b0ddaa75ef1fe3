#pragma once
/// Packed copies of the weights of loaded models, made when a weight is first multiplied with. Internal.

#include <memory>

#include "infer/packed_matrix.h"

struct ggml_tensor;  // ggml.h

namespace tailor {

/// A weight of a model in one of the packed formats, in memory, of a shape that multiply() takes.
bool packable(const ggml_tensor* weight);

/// Threads: any. The copy stays as long as somebody holds it. The pages of a mapped file that it was made from are
/// given back; they come again when they are read.
std::shared_ptr<const PackedMatrix> packed_weight(const ggml_tensor* weight);

/// After a model was freed: another may come to lie at its address.
void forget_packed_weights();

}  // namespace tailor
