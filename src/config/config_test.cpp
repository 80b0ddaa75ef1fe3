#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "config/foreign_keys.h"
#include "config/schema.h"
#include "config/translation.h"
#include "config/tune_config.h"
#include "config/value.h"
#include "core/files.h"

namespace tailor {
namespace {

using ::testing::HasSubstr;

TuneConfig read(std::string_view yaml) {
  TuneConfig config = read_tune_config(parse_yaml(yaml, "t.yaml").value(), "t.yaml");
  check_together(config);
  return config;
}
std::string errors_of(const TuneConfig& config) {
  std::string out;
  for (const Error& error : config.errors) out += to_string(error) + "\n";
  return out;
}
std::string notes_of(const TuneConfig& config) {
  std::string out;
  for (const std::string& note : config.notes) out += note + "\n";
  return out;
}
using Sorted = nlohmann::json;  // compares whatever the order of the keys

/// The options, where there is nothing wrong.
Sorted options(std::string_view yaml) {
  const TuneConfig config = read(yaml);
  EXPECT_EQ(errors_of(config), "") << yaml;
  return options_of(config);
}
std::string refusal(std::string_view yaml) {
  const TuneConfig config = read(yaml);
  EXPECT_EQ(config.errors.size(), 1u) << yaml << "\n" << errors_of(config);
  return errors_of(config);
}
Sorted json(std::string_view text) {
  return parse_json(text, "json").value();
}

TEST(Yaml, KeepsLinesOrderAndKeysThatAreGivenTwice) {
  const YamlNode root = parse_yaml("b: 1\na: [x, \"2\"]\nb:\n  c: ~\n", "t").value();
  ASSERT_EQ(root.entries.size(), 3u);
  EXPECT_EQ(root.entries[0].name, "b");
  EXPECT_EQ(root.entries[2].name, "b");
  EXPECT_EQ(root.entries[2].line, 3);
  EXPECT_EQ(root.entries[2].value.entries[0].value.kind, YamlNode::Kind::kNull);
  EXPECT_FALSE(root.entries[1].value.items[0].quoted);
  EXPECT_TRUE(root.entries[1].value.items[1].quoted);
  EXPECT_EQ(parse_yaml("", "t").value().kind, YamlNode::Kind::kNull);
  EXPECT_EQ(parse_yaml("{\"r\": 8, \"bias\": \"none\"}", "t").value().entries.size(), 2u);  // JSON
}

TEST(Yaml, RefusesWhatCannotBeShownByLine) {
  const auto message = [](std::string_view text) {
    const auto tree = parse_yaml(text, "t.yaml");
    return tree ? fmt::format("read: {}", text.substr(0, 40)) : to_string(tree.error());
  };
  EXPECT_THAT(message("a: &x 1\nb: *x\n"), HasSubstr("t.yaml:1: an anchor"));
  EXPECT_THAT(message("a: 1\nb: !!python/object:os.system x\n"), HasSubstr("t.yaml:2: a tag"));
  EXPECT_THAT(message("a: 1\n---\nb: 2\n"), HasSubstr("several documents"));
  EXPECT_THAT(message("a: 1\n? [x]\n: 2\n"), HasSubstr("t.yaml:2"));
  EXPECT_THAT(message("a: [1, 2\nb: 3\n"), HasSubstr("not YAML"));
  EXPECT_THAT(message("a: 'it''s'\nb: \"\xC3\xA4\\\"\nc: 2\n"), HasSubstr("t.yaml:2: not YAML: a quote is opened"));
  EXPECT_THAT(message("\xEF\xBB\xBF"
                      "a: 'b\n"),
              HasSubstr("t.yaml:1: not YAML: a quote is opened"));
  EXPECT_THAT(message("a: |\n  x\nb: \"y\\\\\"\n"), HasSubstr("read"));
  EXPECT_THAT(message("a: \xff\n"), HasSubstr("not UTF-8"));
  EXPECT_THAT(message("a: " + std::string(17, '[') + std::string(17, ']')), HasSubstr("16 deep"));
  EXPECT_THAT(message(std::string(100000, '[')), HasSubstr("t.yaml"));
  EXPECT_THAT(message(std::string(kMaxYamlBytes + 1, ' ')), HasSubstr("too many"));
  EXPECT_FALSE(read_yaml("no/such/file.yaml"));
}

TEST(Config, ReadsNumbersAsPeopleWriteThem) {
  for (const char* rate : {"2e-4", "2E-4", "0.0002", "+2.0e-04", ".0002"})
    EXPECT_EQ(options(fmt::format("learning_rate: {}", rate)).at("settings").at("learning_rate"), 2e-4) << rate;
  EXPECT_EQ(options("batch_size: 8.0").at("settings").at("batch_size"), 8);
  for (const char* wrong : {"\"2e-4\"", "nan", ".inf", "0x10", "1_000", "fast", "[1]", "{a: 1}", "0", "-1", "true"})
    EXPECT_THAT(refusal(fmt::format("\nlearning_rate: {}", wrong)),
                HasSubstr("t.yaml:2: learning_rate should be a number above 0, up to 1000, it is"))
        << wrong;
  EXPECT_THAT(refusal("learning_rate: \"2e-4\""), HasSubstr("the text \"2e-4\" (write numbers without quotes)"));
  EXPECT_THAT(refusal("batch_size: 2.5"),
              HasSubstr("should be a whole number from 1 to 1000000, it is the number 2.5"));
  EXPECT_THAT(refusal("epochs:\n  - 1"), HasSubstr("it is a list"));
}

TEST(Config, TextsFlagsListsAndChoices) {
  EXPECT_EQ(options("head_start: no\nmethod: full").at("head_start"), false);
  EXPECT_EQ(options("text: [subject, body]\nlabel: x").at("text_columns"), json(R"(["subject", "body"])"));
  EXPECT_EQ(options("text: \"5\"").at("text_columns"), json(R"(["5"])"));
  EXPECT_THAT(refusal("label: 5"), HasSubstr("label should be a text, it is the number 5 (put it in quotes)"));
  EXPECT_EQ(options("target_modules: q_proj, v_proj").at("settings").at("lora").at("target_modules"),
            json(R"(["q_proj", "v_proj"])"));
  EXPECT_EQ(options("delimiter: tab").at("delimiter"), "\t");
  EXPECT_THAT(refusal("schedule: cosin"),
              HasSubstr("should be one of linear, cosine, constant, it is the text \"cosin\""));
  EXPECT_THAT(refusal("head_start: 1"), HasSubstr("should be true or false"));
  EXPECT_THAT(refusal("lora: {target_modules: []}"), HasSubstr("it is an empty list"));
  EXPECT_EQ(options("additional_target: embed_tokens,lm_head").at("settings").at("lora").at("modules_to_save"),
            json(R"(["embed_tokens", "lm_head"])"));
  EXPECT_EQ(options("modules_to_save: []").at("settings").at("lora").at("modules_to_save"), Json::array());
}

TEST(Config, EveryAliasIsItsSetting) {
  for (const Setting& setting : tune_settings()) {
    for (const Alias& alias : setting.aliases) {
      std::string value = "abc";
      if (setting.kind == ValueKind::kNumber || setting.kind == ValueKind::kWhole)
        value = setting.low >= 1 || setting.high > 1 ? "3" : "0.25";
      if (setting.kind == ValueKind::kFlag) value = "true";
      if (setting.kind == ValueKind::kValues) value = "{a: 1}";
      if (setting.kind == ValueKind::kWholes) value = "[3]";
      const TuneConfig config =
          read_tune_config(parse_yaml(fmt::format("{}: {}", alias.name, value), "t").value(), "t");
      ASSERT_EQ(config.given.size(), 1u) << alias.name << errors_of(config);
      EXPECT_EQ(config.given[0].setting, &setting);
      EXPECT_EQ(config.given[0].tools, alias.tools);
    }
  }
}

TEST(Config, NamesAreUnique) {
  std::set<std::string_view> names;
  const auto add = [&](std::string_view name) { EXPECT_TRUE(names.insert(name).second) << name; };
  for (const Setting& setting : tune_settings()) {
    add(setting.key);
    for (const Alias& alias : setting.aliases) add(alias.name);
  }
  for (const Translation& translation : translations()) {
    if (translation.name != "dtype") add(translation.name);  // ours, with words of other tools beside ours
  }
  for (const ForeignKey& key : foreign_keys()) add(key.name);
}

TEST(Config, SectionsAndDottedKeysAreTheSame) {
  EXPECT_EQ(options("lora: {r: 4, alpha: 8}"), options("lora.r: 4\nlora.alpha: 8"));
  EXPECT_EQ(options("method: adapter-houlsby\nadapter: {size: 8}").at("settings").at("adapter").at("size"), 8);
  EXPECT_THAT(refusal("lora: {rnak: 4}"), HasSubstr("there is no setting \"lora.rnak\""));
  EXPECT_THAT(refusal("lora: {alhpa: 4}"), HasSubstr("did you mean lora.alpha?"));
  EXPECT_THAT(refusal("lora: true"), HasSubstr("lora should be a map of settings"));
  EXPECT_THAT(refusal("lora: {r: 4}\nlora.r: 4"), HasSubstr("t.yaml:2: lora.r is given twice, first at t.yaml:1"));
}

TEST(Config, BatchIsTheProductOfItsParts) {
  EXPECT_EQ(options("micro_batch_size: 2\ngradient_accumulation_steps: 4").at("settings").at("batch_size"), 8);
  EXPECT_EQ(options("per_device_train_batch_size: 3").at("settings").at("batch_size"), 3);
  EXPECT_EQ(options("batch_size: 3\ngradient_accumulation_steps: 1").at("settings").at("batch_size"), 3);
  EXPECT_THAT(refusal("gradient_accumulation_steps: 4"), HasSubstr("write batch_size alone"));
  EXPECT_THAT(refusal("batch_size: 8\ngradient_accumulation_steps: 4"), HasSubstr("is not clear"));
  EXPECT_THAT(refusal("batch_size: 8\nmicro_batch_size: 4"), HasSubstr("keep one of them"));
  EXPECT_THAT(refusal("micro_batch_size: 8\nper_device_train_batch_size: 4"), HasSubstr("micro_batch_size says 8"));
  EXPECT_THAT(refusal("micro_batch_size: 1000000\ngradient_accumulation_steps: 4"), HasSubstr("at most 1000000"));
}

TEST(Config, MethodsOfOtherTools) {
  const auto method = [](std::string_view yaml) { return options(yaml).at("method").get<std::string>(); };
  EXPECT_EQ(method("adapter: qlora\nload_in_4bit: true"), "qlora");
  EXPECT_EQ(method("adapter: lora\nload_in_4bit: true"), "qlora");
  EXPECT_EQ(method("adapter: lora\nload_in_4bit: false"), "lora");
  EXPECT_EQ(method("method: lora\nload_in_4bit: true"), "qlora");
  EXPECT_EQ(method("finetuning_type: lora\nquantization_bit: 4"), "qlora");
  EXPECT_EQ(method("finetuning_type: freeze\nfreeze_trainable_layers: 3"), "upper-layers");
  EXPECT_EQ(method("peft_type: PREFIX_TUNING\nnum_virtual_tokens: 8"), "prefix-tuning");
  EXPECT_EQ(method("peft_type: LORA\nmethod: dora"), "dora");
  EXPECT_EQ(method("use_peft: false"), "full");
  EXPECT_THAT(refusal("method: full\nadapter: lora"),
              HasSubstr("adapter asks for low-rank updates, but method says full"));
  EXPECT_THAT(refusal("method: ia3\nload_in_4bit: true"), HasSubstr("means nothing to method ia3"));
  EXPECT_THAT(refusal("method: ia3\npeft_type: PREFIX_TUNING"), HasSubstr("keep one of them"));
  EXPECT_THAT(refusal("adapter: longlora"), HasSubstr("one of LORA, QLORA"));
  EXPECT_THAT(refusal("method: lorra"), HasSubstr("did you mean lora?"));
}

TEST(Config, TranslatesSchedulesEvaluationsAndTargets) {
  EXPECT_EQ(options("lr_scheduler_type: constant_with_warmup").at("settings").at("schedule"), "constant");
  EXPECT_THAT(refusal("lr_scheduler_type: polynomial"), HasSubstr("one of LINEAR, COSINE"));
  EXPECT_EQ(options("warmup_steps: 10\nmax_steps: 100").at("settings").at("warmup_ratio"), 0.1);
  EXPECT_EQ(options("warmup_steps: 0.05").at("settings").at("warmup_ratio"), 0.05);
  EXPECT_EQ(options("warmup_steps: 0").at("settings").at("warmup_ratio"), 0.0);
  EXPECT_THAT(refusal("warmup_steps: 10"), HasSubstr("write warmup_ratio"));
  EXPECT_THAT(refusal("warmup_steps: 10\nmax_steps: 10"), HasSubstr("leaves no step"));
  EXPECT_EQ(options("evals_per_epoch: 4").at("job").at("evaluate_every_epochs"), 0.25);
  EXPECT_EQ(options("eval_strategy: steps\neval_steps: 50").at("job"), json(R"({"evaluate_every_steps": 50})"));
  EXPECT_EQ(options("eval_strategy: no").at("job").at("evaluate_every_epochs"), 0.0);
  EXPECT_THAT(refusal("eval_strategy: steps"), HasSubstr("eval_steps is missing"));
  EXPECT_EQ(options("metric_for_best_model: eval_f1").at("metric"), "macro_f1");
  EXPECT_EQ(options("lora_target: all"), options("lora_target_linear: true"));
  EXPECT_EQ(options("init_lora_weights: pissa_niter_16").at("settings").at("lora").at("pissa"), true);
  EXPECT_THAT(refusal("init_lora_weights: loftq"), HasSubstr("true or pissa"));
  EXPECT_EQ(options("encoder_reparameterization_type: LSTM\nmethod: p-tuning").at("settings").at("soft_prompt"),
            json(R"({"encoder": "lstm"})"));
  EXPECT_THAT(refusal("optim: sgd"), HasSubstr("AdamW is the optimiser"));
  EXPECT_THAT(notes_of(read("optim: adamw_8bit")), HasSubstr("32 bits"));
  EXPECT_EQ(options("val_set_size: 0.05").at("validation_fraction"), 0.05);
  EXPECT_THAT(refusal("val_set_size: 0"), HasSubstr("rows for validation choose"));
  EXPECT_THAT(refusal("val_size: 500"), HasSubstr("a share of the rows"));
  EXPECT_EQ(options("template: \"{a}: {b}\"\nlabel: x").at("text_template"), "{a}: {b}");
  EXPECT_THAT(notes_of(read("template: qwen")), HasSubstr("own chat template"));
}

TEST(Config, WhatOtherToolsSayOfPrecisionAndCheckpointing) {
  const auto dtype = [](const std::string& text) {
    const Json settings = options(text).value("settings", Json::object());
    return settings.value("dtype", "");
  };
  for (const char* text : {"dtype: bf16", "dtype: bfloat16", "torch_dtype: bfloat16", "bf16: true", "bfloat16: true",
                           "pure_bf16: true", "bf16: true\ntorch_dtype: bfloat16", "method: ia3\nbf16: true"})
    EXPECT_EQ(dtype(text), "bf16") << text;
  EXPECT_EQ(dtype("dtype: f32"), "f32");
  // The word for weights goes before that for arithmetic.
  for (const char* text : {"dtype: float32", "torch_dtype: auto", "torch_dtype: float16", "bf16: auto", "bf16: false",
                           "bf16: true\ntorch_dtype: float32", "method: full\nbf16: true",
                           "method: qlora\ndtype: bfloat16", "method: pissa\nbf16: true", "fp16: true"})
    EXPECT_EQ(dtype(text), "") << text;
  EXPECT_THAT(notes_of(read("method: full\nbf16: true")), HasSubstr("t.yaml:2: bf16 changes nothing: this method"));
  EXPECT_THAT(refusal("method: full\ndtype: bf16"), HasSubstr("dtype means nothing to method full"));
  EXPECT_THAT(refusal("method: qlora\ndtype: bf16"), HasSubstr("dtype means nothing to method qlora"));
  EXPECT_THAT(refusal("method: pissa\ndtype: bf16"), HasSubstr("has to stay exact"));
  EXPECT_THAT(refusal("dtype: int8"), HasSubstr("dtype should be one of FLOAT32"));
  const auto checkpointing = [](const std::string& text) {
    return options(text).at("settings").at("activation_checkpointing");
  };
  EXPECT_EQ(checkpointing("activation_checkpointing: true"), true);
  EXPECT_EQ(checkpointing("gradient_checkpointing: true"), true);
  EXPECT_EQ(checkpointing("gradient_checkpointing: offload"), true);
  EXPECT_EQ(checkpointing("gradient_checkpointing: false"), false);
  EXPECT_EQ(checkpointing("disable_gradient_checkpointing: true"), false);
  EXPECT_THAT(refusal("method: head\nactivation_checkpointing: true"), HasSubstr("means nothing to method head"));
  EXPECT_THAT(refusal("gradient_checkpointing: true\nactivation_checkpointing: false"), HasSubstr("keep one of them"));
  EXPECT_EQ(options("device: cuda").at("job").at("device"), "cuda");
  EXPECT_THAT(refusal("device: tpu"), HasSubstr("one of cpu, cuda"));
}

TEST(Config, DataOfOtherTools) {
  EXPECT_EQ(options("datasets:\n  - path: a.jsonl\n    type: chat_template").at("data"), "a.jsonl");
  EXPECT_EQ(options("dataset: a.json\neval_dataset: b.json"),
            json(R"({"data": "a.json", "validation_file": "b.json"})"));
  EXPECT_THAT(refusal("datasets:\n  - path: tatsu-lab/alpaca\n    type: alpaca"),
              HasSubstr("t.yaml:2: datasets.path should be a file"));
  EXPECT_THAT(refusal("datasets: [{path: a.jsonl}, {path: b.jsonl}]"), HasSubstr("put all examples into one file"));
  EXPECT_THAT(refusal("datasets: [{path: a.jsonl, split: train}]"), HasSubstr("datasets.split"));
  EXPECT_THAT(refusal("dataset: identity"), HasSubstr("names of data sets are not looked up"));
}

TEST(Config, KeysOfOtherToolsAreNotedOrRefusedNeverDropped) {
  const TuneConfig config = read(
      "bf16: auto\nwandb_project: x\nbias: none\nfan_in_fan_out: false\nrank_pattern: {}\n"
      "learning_rate:\n");
  EXPECT_EQ(errors_of(config), "");
  EXPECT_TRUE(config.given.empty());
  EXPECT_THAT(notes_of(config), HasSubstr("t.yaml:1: bf16 changes nothing"));
  EXPECT_THAT(notes_of(config), HasSubstr("t.yaml:2: wandb_project changes nothing"));
  EXPECT_THAT(notes_of(config), HasSubstr("bias, fan_in_fan_out, rank_pattern: what holds here anyway"));
  EXPECT_THAT(notes_of(config), HasSubstr("learning_rate is empty"));
  EXPECT_THAT(refusal("layers_to_transform: [1]"), HasSubstr("layers_to_transform (PEFT, Axolotl) is a list"));
  EXPECT_THAT(refusal("stage: dpo"), HasSubstr("stage sft"));
  EXPECT_THAT(refusal("train_on_inputs: true"), HasSubstr("the loss is on the answers alone"));
  EXPECT_THAT(refusal("load_in_8bit: true"), HasSubstr("method qlora"));
  EXPECT_THAT(refusal("resume_from_checkpoint: out/checkpoint-100"), HasSubstr("tailor tune --resume"));
}

TEST(Config, SaysEverythingThatIsWrongAtOnce) {
  const TuneConfig config = read(
      "lerning_rate: 1\nepochs: many\nnum_epochs: 3\nepochs: 2\nzzz: 1\nupper_layers: 2\n"
      "r: 8\nlora_r: 9\nlora_rank: 8\n");
  EXPECT_EQ(config.errors.size(), 6u) << errors_of(config);
  const std::string all = errors_of(config);
  EXPECT_THAT(all, HasSubstr("t.yaml:1: there is no setting \"lerning_rate\" (did you mean learning_rate?)"));
  EXPECT_THAT(all, HasSubstr("t.yaml:2: epochs should be a number"));
  EXPECT_THAT(all, HasSubstr("t.yaml:4: epochs is given twice, first at t.yaml:2"));
  EXPECT_THAT(all, HasSubstr("t.yaml:5: there is no setting \"zzz\" (`tailor config schema`"));
  EXPECT_THAT(all, HasSubstr("t.yaml:6: upper_layers means nothing to method lora"));
  EXPECT_THAT(all, HasSubstr("t.yaml:8: lora_r says lora.r is 9, but r says 8 (t.yaml:7)"));
  EXPECT_THAT(refusal("- a\n- b"), HasSubstr("expected settings (name: value), seen a list"));
  EXPECT_THAT(refusal("text: a\nlabel: b\ncutoff_len: 100"),
              HasSubstr("max_tokens means nothing to texts with labels"));
  EXPECT_THAT(refusal("method: dora\ninit_lora_weights: pissa"), HasSubstr("t.yaml:2: dora and pissa exclude"));
  EXPECT_THAT(refusal("method: pissa\nuse_dora: true"), HasSubstr("t.yaml:2: dora and pissa exclude"));
  EXPECT_THAT(refusal("method: features\nlearning_rate: 1"), HasSubstr("means nothing to method features"));
  EXPECT_EQ(options("method: features\nmax_steps: 30"),
            json(R"({"method": "features", "settings": {"max_steps": 30}})"));
}

TEST(Config, FlagsAndSetWinOverTheFile) {
  TuneConfig config = read_tune_config(parse_yaml("num_epochs: 3\nlora_r: 8\nmethod: lora", "t").value(), "t");
  TuneConfig line;
  add_flag(line, *find_setting("epochs"), "--epochs", {"2"});
  add_flag(line, *find_setting("head_start"), "--no-head-start", {});
  add_flag(line, *find_setting("lora.target_modules"), "--target-modules", {"a,b", "c"});
  lay_over(line, read_set_words({"lora_alpha=64", "lora.dropout=5e-2", "label=5"}));
  lay_over(config, std::move(line));
  EXPECT_EQ(errors_of(config), "");
  EXPECT_EQ(Sorted(options_of(config)),
            json(R"({"settings": {"lora": {"r": 8, "target_modules": ["a", "b", "c"], "alpha": 64.0, "dropout": 0.05},
                     "epochs": 2.0}, "method": "lora", "head_start": false, "label_column": "5"})"));
  EXPECT_EQ(config.find("epochs")->where, "--epochs");
  TuneConfig wrong;
  add_flag(wrong, *find_setting("epochs"), "--epochs", {"two"});
  EXPECT_THAT(errors_of(wrong),
              HasSubstr("--epochs should be a number above 0, up to 1000000, it is the text \"two\""));
  EXPECT_THAT(errors_of(read_set_words({"lora_alhpa=1"})), HasSubstr("did you mean lora_alpha?"));
  EXPECT_THAT(errors_of(read_set_words({"epochs"})), HasSubstr("expected key=value"));
  EXPECT_THAT(errors_of(read_set_words({"epochs=[1"})), HasSubstr("not YAML"));
}

// Files as the documentation of these tools shows them, with data that lie in a file.
TEST(Config, ReadsFilesOfOtherTools) {
  EXPECT_EQ(options(R"(
base_model: smollm2-135m-instruct
model_type: LlamaForCausalLM
load_in_8bit: false
load_in_4bit: true
strict: false
datasets:
  - path: chat.jsonl
    type: chat_template
val_set_size: 0.05
output_dir: ./outputs/qlora
adapter: qlora
lora_model_dir:
sequence_len: 1024
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules:
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_32bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
logging_steps: 1
flash_attention: true
warmup_ratio: 0.1
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
special_tokens:
)"),
            json(R"({"model": "smollm2-135m-instruct", "data": "chat.jsonl", "validation_fraction": 0.05,
                     "out": "./outputs/qlora", "method": "qlora", "max_tokens": 1024,
                     "settings": {"lora": {"r": 32, "alpha": 16.0, "dropout": 0.05, "target_modules": ["all-linear"]},
                                  "epochs": 4.0, "schedule": "cosine", "learning_rate": 0.0002, "warmup_ratio": 0.1,
                                  "activation_checkpointing": true, "weight_decay": 0.0, "batch_size": 8},
                     "job": {"log_every_steps": 1, "evaluate_every_epochs": 0.25}})"));
  EXPECT_EQ(options(R"(
### model
model_name_or_path: smollm2-135m-instruct
trust_remote_code: true
### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
### dataset
dataset: data/chat.json
template: llama3
cutoff_len: 2048
max_samples:
overwrite_cache: true
preprocessing_num_workers: 16
dataloader_num_workers: 4
### output
output_dir: saves/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none
### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
### eval
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
)"),
            json(R"({"model": "smollm2-135m-instruct", "method": "lora", "data": "data/chat.json", "max_tokens": 2048,
                     "out": "saves/lora/sft", "validation_fraction": 0.1,
                     "settings": {"lora": {"r": 8, "target_modules": ["all-linear"]}, "learning_rate": 1e-4,
                                  "epochs": 3.0, "schedule": "cosine", "warmup_ratio": 0.1, "dtype": "bf16",
                                  "batch_size": 8},
                     "job": {"log_every_steps": 10, "checkpoint_every_steps": 500, "evaluate_every_steps": 500}})"));
  // adapter_config.json of PEFT: JSON is YAML.
  EXPECT_EQ(options(R"({
  "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "all-minilm-l6-v2", "bias": "none",
  "corda_config": null, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
  "inference_mode": true, "init_lora_weights": true, "layer_replication": null, "layers_pattern": null,
  "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 64, "lora_bias": false, "lora_dropout": 0.0,
  "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA",
  "r": 32, "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "v_proj"],
  "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_dora": false, "use_rslora": true
})"),
            json(R"({"model": "all-minilm-l6-v2", "method": "lora",
                     "settings": {"lora": {"r": 32, "alpha": 64.0, "dropout": 0.0, "dora": false, "rslora": true,
                                           "target_modules": ["q_proj", "v_proj"]}}})"));
}

TEST(Config, DocumentationHoldsTheTables) {
  const char* source = std::getenv("TAILOR_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  const std::filesystem::path root = source;
  EXPECT_NE(read_file(root / "docs/CONFIG.md").value().find(tune_config_tables()), std::string::npos)
      << "put the output of `tailor config keys` into docs/CONFIG.md";
  TuneConfig example = read_tune_config(read_yaml(root / "examples/tune.yaml").value(), "examples/tune.yaml");
  check_together(example);
  EXPECT_EQ(errors_of(example), "");
  EXPECT_EQ(notes_of(example), "");
}

TEST(Config, TheSchemaHasEveryName) {
  const Json schema = tune_config_schema();
  EXPECT_EQ(schema.at("$schema"), "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema.at("additionalProperties"), false);
  const Json& properties = schema.at("properties");
  for (const Setting& setting : tune_settings()) {
    EXPECT_TRUE(properties.contains(setting.key)) << setting.key;
    for (const Alias& alias : setting.aliases) EXPECT_TRUE(properties.contains(alias.name)) << alias.name;
  }
  for (const Translation& translation : translations()) EXPECT_TRUE(properties.contains(translation.name));
  EXPECT_EQ(Sorted(properties.at("epochs").at("anyOf").at(0)),
            json(R"({"type": "number", "exclusiveMinimum": 0, "maximum": 1000000})"));
  EXPECT_EQ(properties.at("lora").at("anyOf").at(0).at("properties").at("r"), properties.at("lora.r"));
  EXPECT_EQ(properties.at("adapter").at("anyOf").size(), 3u);  // ours, nothing, Axolotl's
  EXPECT_TRUE(schema.at("patternProperties").contains("^wandb_"));
}

TEST(TuneConfig, VariablesOfATemplate) {
  const Sorted expected = json(R"({"template_variables": {"enable_thinking": false, "effort": "low", "n": 2}})");
  EXPECT_EQ(options("template_variables: {enable_thinking: false, effort: low, n: 2}"), expected);
  EXPECT_EQ(options("chat_template_kwargs:\n  enable_thinking: no\n  effort: low\n  n: 2"), expected);
  EXPECT_EQ(options("enable_thinking: true"), json(R"({"template_variables": {"enable_thinking": true}})"));
  EXPECT_THAT(refusal("template_variables: [a]"), HasSubstr("a map of names to values, it is a list"));
  EXPECT_THAT(refusal("template_variables: {}"), HasSubstr("a map of names to values"));
  EXPECT_THAT(refusal("template_variables: {a b: 1}"), HasSubstr("a map of names to values"));
  TuneConfig line;
  add_flag(line, *find_setting("template_variables"), "--template-variable",
           {"enable_thinking=false", "effort=low", "n=2"});
  EXPECT_EQ(Sorted(options_of(line)), expected);
  for (const auto& words : {std::vector<std::string>{"a"}, {"=1"}, {"1a=2"}, {"a=1", "a=2"}, {"a={"}}) {
    TuneConfig wrong;
    add_flag(wrong, *find_setting("template_variables"), "--template-variable", words);
    EXPECT_EQ(wrong.errors.size(), 1u) << words[0];
  }
}

}  // namespace
}  // namespace tailor
