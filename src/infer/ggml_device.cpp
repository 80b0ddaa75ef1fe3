#include "infer/ggml_device.h"

#include <ggml-backend-impl.h>
#include <ggml-backend.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "infer/attention.h"
#include "infer/packed_weights.h"

namespace tailor {
namespace {

struct Context {
  int threads = 1;
};
thread_local int t_kernel_threads = 1;
thread_local bool t_own_attention = false;
thread_local int t_shared_cells = -1;

float parameter(const ggml_tensor* op, std::size_t i) {
  float value = 0;
  std::memcpy(&value, reinterpret_cast<const char*>(op->op_params) + i * sizeof value, sizeof value);
  return value;
}

/// One sequence of cells, no ALiBi, no sinks; the rest is ggml's own.
bool takes_attention(const ggml_tensor* op) {
  const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
  if (mask == nullptr || op->src[4] != nullptr || parameter(op, 1) != 0.0f) return false;
  return q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 &&
         mask->type == GGML_TYPE_F16 && op->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && k->nb[0] == 2 &&
         v->nb[0] == 2 && mask->nb[0] == 2 && ggml_is_contiguous(op) && q->ne[3] == 1 && k->ne[3] == 1 &&
         mask->ne[2] == 1 && mask->ne[3] == 1 && k->ne[1] % 64 == 0 && mask->ne[0] == k->ne[1] &&
         k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0 && attention_width(k->ne[0]) && attention_width(v->ne[0]);
}

bool takes_product(const ggml_tensor* op) {
  const ggml_tensor *weight = op->src[0], *x = op->src[1];
  return packed_products() && packable(weight) && x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[2] == 1 &&
         x->ne[3] == 1 && op->type == GGML_TYPE_F32 && ggml_is_contiguous(op) && x->ne[0] == weight->ne[0] &&
         op->op_params[1] == 0;  // no hint that a transform can stand for the product
}

void compute_product(const ggml_tensor* op, int threads) {
  const ggml_tensor* x = op->src[1];
  multiply(*packed_weight(op->src[0]), static_cast<const float*>(x->data), x->ne[1], static_cast<float*>(op->data),
           threads);
}

void compute_attention(const ggml_tensor* op, int threads) {
  const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
  attend({.tokens = static_cast<int>(q->ne[1]),
          .cells = static_cast<int>(k->ne[1]),
          .heads = static_cast<int>(q->ne[2]),
          .kv_heads = static_cast<int>(k->ne[2]),
          .key_width = static_cast<int>(k->ne[0]),
          .value_width = static_cast<int>(v->ne[0]),
          .scale = parameter(op, 0),
          .softcap = parameter(op, 2),
          .queries = static_cast<const char*>(q->data),
          .query_token = q->nb[1],
          .query_head = q->nb[2],
          .keys = static_cast<const char*>(k->data),
          .key_cell = k->nb[1],
          .key_head = k->nb[2],
          .values = static_cast<const char*>(v->data),
          .value_cell = v->nb[1],
          .value_head = v->nb[2],
          .mask = static_cast<const char*>(mask->data),
          .mask_token = mask->nb[1],
          .shared_cells = t_shared_cells,
          .out = static_cast<float*>(op->data)},
         threads);
}

const char* name_of(ggml_backend_t) {
  return "Tailor";
}
void free_backend(ggml_backend_t backend) {
  delete static_cast<Context*>(backend->context);
  delete backend;
}
ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph* graph) {
  const int threads = std::max(static_cast<Context*>(backend->context)->threads, t_kernel_threads);
  try {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
      const ggml_tensor* node = ggml_graph_node(graph, i);
      if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) continue;
      if (node->op == GGML_OP_FLASH_ATTN_EXT) compute_attention(node, threads);
      if (node->op == GGML_OP_MUL_MAT) compute_product(node, threads);
    }
  } catch (const std::bad_alloc&) {
    return GGML_STATUS_ALLOC_FAILED;
  }
  return GGML_STATUS_SUCCESS;
}

ggml_guid_t guid() {
  static ggml_guid id = {0x7a, 0x11, 0x0c, 0x5e, 0x21, 0x94, 0x4d, 0x3b,
                         0x9f, 0x60, 0x5c, 0xd8, 0x12, 0xe7, 0x83, 0x46};
  return &id;
}

ggml_backend_t make_backend(ggml_backend_dev_t device, const char*) {
  ggml_backend_i functions{};
  functions.get_name = name_of;
  functions.free = free_backend;
  functions.graph_compute = compute_graph;
  return new ggml_backend{guid(), functions, device, new Context};
}

void set_threads(ggml_backend_t backend, int threads) {
  static_cast<Context*>(backend->context)->threads = std::max(1, threads);
}

const char* device_name(ggml_backend_dev_t) {
  return "Tailor";
}
const char* device_description(ggml_backend_dev_t) {
  return "attention over shared cells, products with quantized weights";
}
void device_memory(ggml_backend_dev_t, std::size_t* free, std::size_t* total) {
  *free = *total = 0;
}
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) {
  return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}
void device_properties(ggml_backend_dev_t device, ggml_backend_dev_props* properties) {
  *properties = {};
  properties->name = device_name(device);
  properties->description = device_description(device);
  properties->type = device_type(device);
}
ggml_backend_buffer_type_t device_buffers(ggml_backend_dev_t) {
  return ggml_backend_cpu_buffer_type();
}
bool supports(ggml_backend_dev_t, const ggml_tensor* op) {
  return (op->op == GGML_OP_FLASH_ATTN_EXT && t_own_attention && takes_attention(op)) ||
         (op->op == GGML_OP_MUL_MAT && takes_product(op));
}
bool supports_buffers(ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
  return ggml_backend_buft_is_host(type);
}

const char* registry_name(ggml_backend_reg_t) {
  return "Tailor";
}
std::size_t device_count(ggml_backend_reg_t) {
  return 1;
}
ggml_backend_dev_t device_at(ggml_backend_reg_t registry, std::size_t) {
  static ggml_backend_device device = [registry] {
    ggml_backend_device_i functions{};
    functions.get_name = device_name;
    functions.get_description = device_description;
    functions.get_memory = device_memory;
    functions.get_type = device_type;
    functions.get_props = device_properties;
    functions.init_backend = make_backend;
    functions.get_buffer_type = device_buffers;
    functions.supports_op = supports;
    functions.supports_buft = supports_buffers;
    return ggml_backend_device{functions, registry, nullptr};
  }();
  return &device;
}
void* function_at(ggml_backend_reg_t, const char* name) {
  return std::strcmp(name, "ggml_backend_set_n_threads") == 0 ? reinterpret_cast<void*>(set_threads) : nullptr;
}

}  // namespace

void set_own_attention(bool on, int shared_cells) {
  t_own_attention = on;
  t_shared_cells = shared_cells;
}

void set_kernel_threads(int threads) {
  t_kernel_threads = threads;
}

void use_own_kernels() {
  static const bool done = [] {
    static ggml_backend_reg registry = [] {
      ggml_backend_reg_i functions{};
      functions.get_name = registry_name;
      functions.get_device_count = device_count;
      functions.get_device = device_at;
      functions.get_proc_address = function_at;
      return ggml_backend_reg{GGML_BACKEND_API_VERSION, functions, nullptr};
    }();
    ggml_backend_register(&registry);
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace tailor
