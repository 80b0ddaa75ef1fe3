#include "config/foreign_keys.h"

#include <algorithm>

namespace tailor {
namespace {

constexpr std::string_view kPrecision =
    "arithmetic and what is trained are in 32-bit floats; dtype: bf16 halves what frozen matrices take";
constexpr std::string_view kMemory = "memory is bounded by micro_batch_tokens and activation_checkpointing";
constexpr std::string_view kAttention = "attention has one implementation here";
constexpr std::string_view kPacking = "rows are always packed, each attending to itself alone";
constexpr std::string_view kLoading = "the file is read and tokenised in one pass";
constexpr std::string_view kTracking = "nothing is sent anywhere; the run directory holds TensorBoard's event files";
constexpr std::string_view kSaving = "the best values and the last checkpoint are kept";
constexpr std::string_view kDirectory = "a run never writes into the directory of another";
constexpr std::string_view kModelKnows = "the model's own file says it";
constexpr std::string_view kQuantised = "method qlora keeps the blocks of the GGUF file that is named";
constexpr std::string_view kOneProcess = "one process trains here";
constexpr std::string_view kTemplate = "the model's own chat template is used, for training as for answering";

constexpr std::string_view kOnlyAnswers = "the loss is on the answers alone; data of the shape `text` are learnt whole";
constexpr std::string_view kOtherTraining = "there is no such training here; leave it out";
constexpr std::string_view kAllLayers = "adapters sit in every layer; choose modules with lora.target_modules";

std::vector<ForeignKey> make_keys() {
  std::vector<ForeignKey> keys;
  const auto note = [&](std::string_view tools, std::string_view what, std::vector<std::string_view> names) {
    for (const auto name : names) keys.push_back({.name = name, .tools = tools, .any_value = true, .what = what});
  };
  const auto only = [&](std::string_view tools, std::string_view what, const std::vector<Json>& neutral,
                        std::vector<std::string_view> names) {
    for (const auto name : names) keys.push_back({.name = name, .tools = tools, .neutral = neutral, .what = what});
  };
  note("TRL, Axolotl, LLaMA-Factory", kPrecision, {"fp16", "tf32", "float16", "upcast_layernorm"});
  note("TRL, Axolotl, LLaMA-Factory", kMemory,
       {"gradient_checkpointing_kwargs", "activation_offloading", "auto_find_batch_size"});
  note("TRL, Axolotl, LLaMA-Factory", kAttention,
       {"flash_attention", "flash_attn", "sdp_attention", "xformers_attention", "eager_attention",
        "attn_implementation", "use_liger_kernel", "enable_liger_kernel", "use_cache"});
  note("TRL, Axolotl, LLaMA-Factory", kPacking,
       {"packing", "packing_strategy", "padding_free", "sample_packing", "eval_packing", "eval_sample_packing",
        "neat_packing", "pad_to_sequence_len", "pad_to_multiple_of", "group_by_length", "sample_packing_eff_est",
        "total_num_tokens"});
  note("TRL, Axolotl, LLaMA-Factory", kLoading,
       {"dataset_prepared_path", "dataset_processes", "dataset_num_proc", "preprocessing_num_workers",
        "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "overwrite_cache",
        "remove_unused_columns", "streaming", "shuffle_merged_datasets"});
  note("TRL, Axolotl, LLaMA-Factory", kTracking,
       {"report_to", "wandb_*", "mlflow_*", "comet_*", "use_tensorboard", "swanlab_*", "use_swanlab", "logging_dir",
        "run_name", "disable_tqdm", "log_level", "plot_loss", "include_num_input_tokens_seen", "logging_first_step",
        "logging_strategy"});
  note("TRL, Axolotl, LLaMA-Factory", kSaving,
       {"save_strategy", "save_total_limit", "saves_per_epoch", "save_only_model", "save_safetensors",
        "load_best_model_at_end", "greater_is_better"});
  note("TRL, LLaMA-Factory", kDirectory, {"overwrite_output_dir"});
  note("PEFT, Axolotl, LLaMA-Factory", kModelKnows,
       {"model_type", "tokenizer_type", "is_llama_derived_model", "is_mistral_derived_model", "is_falcon_derived_model",
        "trust_remote_code", "use_fast_tokenizer", "tokenizer_use_fast", "tokenizer_legacy", "low_cpu_mem_usage",
        "task_type", "num_layers", "num_attention_heads", "token_dim", "num_transformer_submodules", "auto_mapping",
        "peft_version", "inference_mode", "qalora_group_size"});
  note("TRL, Axolotl, LLaMA-Factory", kQuantised,
       {"bnb_4bit_*", "double_quantization", "quantization_type", "quantization_method", "use_bnb_nested_quant"});
  note("TRL, Axolotl, LLaMA-Factory", kOneProcess, {"ddp_*", "local_rank"});
  note("Axolotl", kTemplate, {"chat_template"});
  note("Axolotl, LLaMA-Factory", "evaluations go over the whole validation part",
       {"per_device_eval_batch_size", "eval_batch_size", "eval_table_size", "eval_max_new_tokens", "do_eval",
        "do_predict", "compute_accuracy", "eval_on_start"});
  note("Axolotl", "training is watched for divergence and goes back by itself", {"loss_watchdog_*"});

  only("PEFT, Axolotl", "adapters train no biases; method bitfit does", {"none"}, {"bias"});
  only("PEFT, Axolotl", "the model's own file says how its weights lie", {false},
       {"fan_in_fan_out", "lora_fan_in_fan_out"});
  only("PEFT", "every module has the same rank and alpha", {}, {"rank_pattern", "alpha_pattern"});
  only("PEFT, Axolotl", kAllLayers, {},
       {"layers_to_transform", "lora_layers_to_transform", "layers_pattern", "exclude_modules", "layer_replication",
        "target_parameters", "lora_target_parameters", "feedforward_modules", "peft_layers_to_transform"});
  only("PEFT", "there is no such kind of adapter here; leave it out", {false, "megatron.core"},
       {"loftq_config", "megatron_config", "megatron_core", "eva_config", "corda_config", "arrow_config", "lora_bias",
        "use_qalora", "ensure_weight_tying", "alora_invocation_tokens", "use_bdlora", "lora_ga_config",
        "monteclora_config", "velora_config"});
  only("PEFT", "the encoder has its own number of layers and no dropout", {0, 2},
       {"encoder_num_layers", "encoder_dropout"});
  only("PEFT", "the model's own file is read", {"main"},
       {"revision", "model_revision", "revision_of_model", "tokenizer_name_or_path", "tokenizer_name",
        "tokenizer_config", "tokenizer_kwargs"});
  only("TRL, Axolotl, LLaMA-Factory", "one process trains here; leave it out", {false},
       {"deepspeed", "fsdp", "fsdp_config", "fsdp_version", "tensor_parallel_size", "context_parallel_size",
        "sequence_parallel_degree"});
  only("TRL, Axolotl, LLaMA-Factory", "an interrupted run goes on with `tailor tune --resume RUN`", {false},
       {"resume_from_checkpoint", "auto_resume_from_checkpoints"});
  only("TRL, Axolotl, LLaMA-Factory", "nothing is uploaded; run/package is a directory that you can copy", {false},
       {"push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hf_use_auth_token"});
  only("LLaMA-Factory", "supervised tuning is all there is here: stage sft", {"sft"}, {"stage"});
  only("LLaMA-Factory", "tune always trains; `tailor predict` and `tailor generate` answer", {true}, {"do_train"});
  only("TRL, Axolotl, LLaMA-Factory", kOnlyAnswers, {false}, {"train_on_inputs", "train_on_prompt", "mask_history"});
  only("Axolotl", kOnlyAnswers, {Json::array({"assistant"})}, {"roles_to_train"});
  only("TRL", kOnlyAnswers, {true}, {"assistant_only_loss", "completion_only_loss"});
  only("TRL", "data of the shape `text` have their text in the field text", {"text"}, {"dataset_text_field"});
  only("TRL, Axolotl", "8 bits are had by method qlora on a GGUF file of that type", {false}, {"load_in_8bit"});
  only("Axolotl, LLaMA-Factory", kOtherTraining, {false},
       {"rl",
        "reward_model",
        "process_reward_model",
        "neftune_noise_alpha",
        "use_galore",
        "use_apollo",
        "use_badam",
        "use_llama_pro",
        "use_adam_mini",
        "use_muon",
        "shift_attn",
        "noisy_embedding_alpha",
        "unfrozen_parameters",
        "relora_steps",
        "use_dft_loss",
        "create_new_adapter",
        "qlora_sharded_model_loading",
        "freeze_trainable_modules",
        "freeze_extra_modules",
        "loraplus_lr_embedding",
        "pure_lora"});
  only("Axolotl, LLaMA-Factory", "the model's own tokens are used; leave it out", {false},
       {"special_tokens", "added_tokens_overrides", "resize_token_embeddings_to_32x", "pad_token", "eos_token"});
  note("LLaMA-Factory", "the vocabulary grows where added_tokens need it", {"resize_vocab"});
  only("TRL, LLaMA-Factory", "data come from a file here: data: train.jsonl", {},
       {"dataset_name", "dataset_config", "dataset_dir", "dataset_train_split", "dataset_test_split",
        "pretraining_dataset", "mix_strategy", "interleave_probs", "media_dir"});
  only("LLaMA-Factory", "cut the file to the rows that count", {}, {"max_samples", "max_eval_samples"});
  only("TRL, Axolotl", "the rate falls to 0", {0},
       {"cosine_min_lr_ratio", "lr_scheduler_kwargs", "min_lr", "cosine_constant_lr_ratio", "lr_quadratic_warmup"});
  only("Axolotl", "unknown keys are always errors here", {true, false}, {"strict"});
  only("TRL, LLaMA-Factory", "seed rules the order of the rows too", {}, {"data_seed"});
  return keys;
}

}  // namespace

const std::vector<ForeignKey>& foreign_keys() {
  static const std::vector<ForeignKey> kKeys = make_keys();
  return kKeys;
}

const ForeignKey* find_foreign_key(std::string_view name) {
  for (const ForeignKey& key : foreign_keys()) {
    const bool open = key.name.ends_with('*');
    if (open ? name.starts_with(key.name.substr(0, key.name.size() - 1)) : name == key.name) return &key;
  }
  return nullptr;
}

bool is_neutral(const ForeignKey& key, const Json& value) {
  if (value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty())) return true;
  if ((value.is_array() || value.is_object()) && value.empty()) return true;
  return std::find(key.neutral.begin(), key.neutral.end(), value) != key.neutral.end();
}

}  // namespace tailor
