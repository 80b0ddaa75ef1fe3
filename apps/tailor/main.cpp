/// tailor: the command line. Parses, calls a recipe, turns errors into sentences and exit codes:
/// 0 done; 2 input or usage; 3 done, some candidates failed; 4 environment; 130 interrupted.

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>

#include "apps/tailor/verbs.h"
#include "core/wait_policy.h"
#include "infer/processor.h"
#include "text/edit_distance.h"

namespace tailor {
namespace {

CancelToken g_cancel;  // signal handlers can reach nothing else

void on_signal(int) {
  if (g_cancel.cancelled()) std::_Exit(130);  // asked twice: go at once
  g_cancel.cancel();
}

std::string quote(const std::string& word) {
  const bool plain = !word.empty() &&
                     word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+") ==
                         std::string::npos;
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

int fail(const Error& error) {
  fmt::print(stderr, "tailor: {}\n", error.message);
  if (!error.hint.empty()) fmt::print(stderr, "  {}\n", error.hint);
  return exit_code_for(error.code);
}

/// CLI11 says what it did not understand; we add the nearest thing there is.
int usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* verb = &app;
  for (const CLI::App* named : app.get_subcommands()) verb = named;
  std::vector<std::string> known;
  std::string unknown;
  const auto has_verb = [&](const std::string& word) {
    for (const CLI::App* sub : app.get_subcommands(nullptr)) {
      if (sub->get_name() == word) return true;
    }
    return false;
  };
  if (argc > 1 && verb == &app && argv[1][0] != '-' && !has_verb(argv[1])) {
    unknown = argv[1];
    for (const CLI::App* sub : app.get_subcommands(nullptr)) {
      if (!sub->get_group().empty()) known.push_back(sub->get_name());
    }
    Error e{ErrorCode::kInvalidArgument, fmt::format("there is no verb \"{}\"", unknown), ""};
    const std::string nearest = nearest_name(unknown, known);
    if (!nearest.empty()) e.hint = fmt::format("did you mean `tailor {}`? ", nearest);
    e.hint += "`tailor --help` lists the verbs";
    return fail(e);
  }
  for (const auto& word : verb->remaining(true)) {
    if (word.rfind("--", 0) != 0) continue;
    unknown = word.substr(0, word.find('='));
    for (const CLI::Option* option : verb->get_options()) {
      for (const auto& name : option->get_lnames()) known.push_back("--" + name);
    }
    Error e{ErrorCode::kInvalidArgument,
            fmt::format("{} has no option {}", verb == &app ? "tailor" : "tailor " + verb->get_name(), unknown), ""};
    if (const std::string nearest = nearest_name(unknown, known); !nearest.empty())
      e.hint = fmt::format("did you mean {}? ", nearest);
    e.hint += fmt::format("`{} --help` lists the options", verb == &app ? "tailor" : "tailor " + verb->get_name());
    return fail(e);
  }
  return fail(
      {ErrorCode::kInvalidArgument, error.what(),
       fmt::format("`{} --help` shows how it is used", verb == &app ? "tailor" : "tailor " + verb->get_name())});
}

int run(int argc, char** argv) {
  restart_with_short_waits(argv);
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  Invocation invocation{"tailor", g_cancel, {}};
  for (int i = 1; i < argc; ++i) invocation.command_line += " " + quote(argv[i]);

  CLI::App app{
      "Tailor fits an open language model to your business: it measures prompting, retrieval and tuning on your\n"
      "own examples, says which to use and why, and gives you a package that answers.\n"};
  app.name("tailor");
  app.set_version_flag("--version", TAILOR_VERSION, "print the version");
  app.require_subcommand(1);
  app.failure_message([](const CLI::App*, const CLI::Error&) { return std::string(); });
  app.footer(
      "Example:  tailor fit inquiries.csv --text message --label intent --budget 15m\n"
      "Each verb has its own help: tailor fit --help");
  add_fit(app, invocation);
  add_tune(app, invocation);
  add_config(app, invocation);
  add_predict(app, invocation);
  add_generate(app, invocation);
  add_serve(app, invocation);
  add_keys(app, invocation);
  add_packages(app, invocation);
  add_audit(app, invocation);
  add_top(app, invocation);
  add_compare(app, invocation);
  add_advise(app, invocation);
  add_doctor(app, invocation);
  add_models(app, invocation);
  add_completion(app, invocation);
  add_trial(app, invocation);
  if (argc == 1) {
    fmt::print("{}", app.help());
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& call) {
    return app.exit(call);
  } catch (const CLI::Success& call) {
    return app.exit(call);
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error, argc, argv);
  }
  if (const char* named = std::getenv("TAILOR_MAX_ISA"); named != nullptr && !instruction_set(named))
    return fail({ErrorCode::kInvalidArgument, fmt::format("TAILOR_MAX_ISA is \"{}\"", named),
                 "it takes portable, avx2, avx512 or vnni; unset it to use all that the processor has"});
  Result<int> code = invocation.run();
  return code ? *code : fail(code.error());
}

}  // namespace
}  // namespace tailor

int main(int argc, char** argv) {
  try {
    return tailor::run(argc, argv);
  } catch (const tailor::Exception& error) {
    return tailor::fail(error.error());
  } catch (const std::bad_alloc&) {
    return tailor::fail({tailor::ErrorCode::kOutOfMemory, "out of memory", "close other programs or use less data"});
  } catch (const std::exception& error) {
    return tailor::fail({tailor::ErrorCode::kInternal, std::string("internal error: ") + error.what(),
                         "please report it with the command that led here"});
  }
}
