#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "jinja/lexer.h"
#include "jinja/syntax.h"

namespace tailor::jinja {
namespace {

constexpr int kDeepestTree = 500;  // of one expression: its evaluation is recursive
constexpr int kDeepestBlocks = 100;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Program run() {
    program_.loop = number_of("loop");
    program_.caller = number_of("caller");
    program_.varargs = number_of("varargs");
    program_.kwargs = number_of("kwargs");
    program_.body = body({});
    return std::move(program_);
  }

 private:
  // --- tokens

  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token next() {
    const Token token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is_operator(std::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kOperator && peek(ahead).text == text;
  }
  bool is_name(std::string_view text, std::size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kName && peek(ahead).text == text;
  }
  bool take_operator(std::string_view text) {
    if (!is_operator(text)) return false;
    next();
    return true;
  }
  bool take_name(std::string_view text) {
    if (!is_name(text)) return false;
    next();
    return true;
  }
  [[noreturn]] static void fail(const Token& seen, const std::string& what) {
    Failure failure(what, ErrorCode::kCorruptData);
    failure.place = seen.place;
    throw failure;
  }
  static std::string shown(const Token& token) {
    switch (token.kind) {
      case TokenKind::kEnd:
        return "the end of the template";
      case TokenKind::kEndBlock:
        return "the end of the tag (%})";
      case TokenKind::kEndOutput:
        return "the end of the tag (}})";
      case TokenKind::kString:
        return "a string";
      default:
        return fmt::format("'{}'", token.text);
    }
  }
  void expect_operator(std::string_view text) {
    if (!take_operator(text)) fail(peek(), fmt::format("expected '{}', saw {}", text, shown(peek())));
  }
  void expect_name(std::string_view text) {
    if (!take_name(text)) fail(peek(), fmt::format("expected '{}', saw {}", text, shown(peek())));
  }
  std::string some_name() {
    if (peek().kind != TokenKind::kName) fail(peek(), fmt::format("expected a name, saw {}", shown(peek())));
    return next().text;
  }
  void end_block() {
    if (peek().kind != TokenKind::kEndBlock)
      fail(peek(), fmt::format("expected the end of the tag (%}}), saw {}", shown(peek())));
    next();
  }
  int number_of(const std::string& name) {
    const auto [found, is_new] = program_.numbers.emplace(name, static_cast<int>(program_.names.size()));
    if (is_new) program_.names.push_back(name);
    return found->second;
  }

  // --- statements

  bool at_block(std::initializer_list<std::string_view> names) const {
    return peek().kind == TokenKind::kBeginBlock && peek(1).kind == TokenKind::kName &&
           std::find(names.begin(), names.end(), peek(1).text) != names.end();
  }

  Body body(std::initializer_list<std::string_view> ends) {
    Body out;
    if (++blocks_ > kDeepestBlocks) fail(peek(), fmt::format("blocks are nested deeper than {}", kDeepestBlocks));
    while (true) {
      const Token& token = peek();
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() > 0) fail(token, fmt::format("a block has no {{% {} %}}", *(ends.end() - 1)));
        break;
      }
      if (ends.size() > 0 && at_block(ends)) break;
      if (token.kind == TokenKind::kText) {
        auto text = make(StatementKind::kText, token);
        text->text = next().text;
        out.push_back(std::move(text));
      } else if (token.kind == TokenKind::kBeginOutput) {
        auto output = make(StatementKind::kOutput, token);
        next();
        output->expressions.push_back(tuple(true, false));
        if (peek().kind != TokenKind::kEndOutput)
          fail(peek(), fmt::format("expected the end of the tag (}}}}), saw {}", shown(peek())));
        next();
        out.push_back(std::move(output));
      } else {
        next();
        out.push_back(statement());
      }
    }
    --blocks_;
    return out;
  }

  /// A body, and the tag that ends it.
  Body body_until(std::string_view end) {
    Body out = body({end});
    next();
    next();
    return out;
  }

  static std::unique_ptr<Statement> make(StatementKind kind, const Token& token) {
    auto out = std::make_unique<Statement>();
    out->kind = kind;
    out->place = token.place;
    return out;
  }

  std::unique_ptr<Statement> statement() {
    const Token token = peek();
    const std::string name = some_name();
    if (name == "if") return if_statement(token);
    if (name == "for") return for_statement(token);
    if (name == "set") return set_statement(token);
    if (name == "macro") return macro_statement(token);
    if (name == "call") return call_statement(token);
    if (name == "filter") {
      auto out = make(StatementKind::kFilter, token);
      out->expressions.push_back(filter(nullptr, true));
      end_block();
      out->bodies.push_back(body_until("endfilter"));
      end_block();
      return out;
    }
    if (name == "with") {
      auto out = make(StatementKind::kWith, token);
      while (peek().kind != TokenKind::kEndBlock) {
        if (!out->parameters.empty()) expect_operator(",");
        Parameter parameter;
        parameter.name = some_name();
        parameter.number = number_of(parameter.name);
        expect_operator("=");
        parameter.standard = expression();
        out->parameters.push_back(std::move(parameter));
      }
      end_block();
      out->bodies.push_back(body_until("endwith"));
      end_block();
      return out;
    }
    if (name == "generation") {
      auto out = make(StatementKind::kGeneration, token);
      end_block();
      out->bodies.push_back(body_until("endgeneration"));
      end_block();
      return out;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail(token, fmt::format("{{% {} %}} stands outside a loop", name));
      auto out = make(name == "break" ? StatementKind::kBreak : StatementKind::kContinue, token);
      end_block();
      return out;
    }
    fail(token, fmt::format("unknown tag {{% {} %}}", name));
  }

  std::unique_ptr<Statement> if_statement(const Token& token) {
    auto out = make(StatementKind::kIf, token);
    out->expressions.push_back(tuple(false, false));
    end_block();
    while (true) {
      out->bodies.push_back(body({"elif", "else", "endif"}));
      next();
      const std::string end = next().text;
      if (end == "elif") {
        out->expressions.push_back(tuple(false, false));
        end_block();
        continue;
      }
      end_block();
      if (end == "else") {
        out->bodies.push_back(body_until("endif"));
        end_block();
      }
      return out;
    }
  }

  std::unique_ptr<Statement> for_statement(const Token& token) {
    auto out = make(StatementKind::kFor, token);
    out->target = target(false);
    expect_name("in");
    out->expressions.push_back(tuple(false, false));
    out->expressions.push_back(take_name("if") ? expression() : nullptr);
    if (is_name("recursive")) fail(peek(), "recursive loops are not supported");
    end_block();
    ++loops_;
    out->bodies.push_back(body({"else", "endfor"}));
    --loops_;
    next();
    const bool otherwise = next().text == "else";
    end_block();
    if (otherwise) {
      out->bodies.push_back(body_until("endfor"));
      end_block();
    }
    return out;
  }

  std::unique_ptr<Statement> set_statement(const Token& token) {
    Target where = target(true);
    if (take_operator("=")) {
      auto out = make(StatementKind::kSet, token);
      out->target = std::move(where);
      out->expressions.push_back(tuple(true, false));
      end_block();
      return out;
    }
    auto out = make(StatementKind::kSetBlock, token);
    out->target = std::move(where);
    out->expressions.push_back(is_operator("|") ? filter(nullptr, false) : nullptr);
    end_block();
    out->bodies.push_back(body_until("endset"));
    end_block();
    return out;
  }

  std::unique_ptr<Statement> macro_statement(const Token& token) {
    auto out = make(StatementKind::kMacro, token);
    out->name = some_name();
    out->number = number_of(out->name);
    out->parameters = signature();
    end_block();
    const int loops = std::exchange(loops_, 0);
    out->bodies.push_back(body_until("endmacro"));
    loops_ = loops;
    end_block();
    return out;
  }

  std::unique_ptr<Statement> call_statement(const Token& token) {
    auto out = make(StatementKind::kCall, token);
    if (is_operator("(")) out->parameters = signature();
    out->expressions.push_back(expression());
    if (out->expressions[0]->kind != ExpressionKind::kCall) fail(token, "expected a call of a macro");
    end_block();
    const int loops = std::exchange(loops_, 0);
    out->bodies.push_back(body_until("endcall"));
    loops_ = loops;
    end_block();
    return out;
  }

  std::vector<Parameter> signature() {
    std::vector<Parameter> out;
    expect_operator("(");
    while (!is_operator(")")) {
      if (!out.empty()) expect_operator(",");
      if (is_operator(")")) break;
      Parameter parameter;
      parameter.name = some_name();
      parameter.number = number_of(parameter.name);
      if (take_operator("=")) parameter.standard = expression();
      out.push_back(std::move(parameter));
    }
    next();
    return out;
  }

  Target target(bool with_attribute) {
    Target out;
    const bool bracket = take_operator("(");
    out.names.push_back(number_of(some_name()));
    if (with_attribute && !bracket && take_operator(".")) {
      out.attribute = some_name();
      return out;
    }
    while (take_operator(",")) {
      out.unpacks = true;
      if (peek().kind != TokenKind::kName || is_name("in")) break;
      out.names.push_back(number_of(some_name()));
    }
    if (bracket) expect_operator(")");
    return out;
  }

  // --- expressions

  static ExpressionPtr node(ExpressionKind kind, std::size_t place) {
    auto out = std::make_unique<Expression>();
    out->kind = kind;
    out->place = place;
    return out;
  }
  static void add(Expression& parent, ExpressionPtr child) {
    if (child != nullptr) {
      parent.depth = std::max(parent.depth, child->depth + 1);
      if (parent.depth > kDeepestTree) {
        Failure failure("an expression is too long", ErrorCode::kCorruptData);
        failure.place = parent.place;
        throw failure;
      }
    }
    parent.parts.push_back(std::move(child));
  }

  struct Deeper {
    explicit Deeper(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kDeepestTree) fail(parser_.peek(), "an expression is nested too deeply");
    }
    ~Deeper() { --parser_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Parser& parser_;
  };

  /// One expression, or several with commas between; `bracketed`: () may be empty.
  ExpressionPtr tuple(bool with_conditional, bool bracketed) {
    const std::size_t place = peek().place;
    const auto one = [&] { return with_conditional ? expression() : or_expression(); };
    const auto ends = [&] {
      const TokenKind kind = peek().kind;
      return kind == TokenKind::kEndBlock || kind == TokenKind::kEndOutput || is_operator(")");
    };
    if (bracketed && is_operator(")")) return node(ExpressionKind::kTuple, place);
    ExpressionPtr first = one();
    if (!is_operator(",")) return first;
    ExpressionPtr out = node(ExpressionKind::kTuple, place);
    add(*out, std::move(first));
    while (take_operator(",")) {
      if (ends()) break;
      add(*out, one());
    }
    return out;
  }

  ExpressionPtr expression() {
    const Deeper deeper(*this);
    ExpressionPtr value = or_expression();
    while (is_name("if")) {
      ExpressionPtr out = node(ExpressionKind::kConditional, next().place);
      add(*out, std::move(value));
      add(*out, or_expression());
      add(*out, take_name("else") ? expression() : nullptr);
      value = std::move(out);
    }
    return value;
  }

  template <typename Operand>
  ExpressionPtr joined(ExpressionKind kind, std::string_view word, Operand operand) {
    ExpressionPtr first = operand();
    if (!is_name(word)) return first;
    ExpressionPtr out = node(kind, first->place);
    add(*out, std::move(first));
    while (take_name(word)) add(*out, operand());
    return out;
  }
  ExpressionPtr or_expression() {
    return joined(ExpressionKind::kOr, "or", [&] { return and_expression(); });
  }
  ExpressionPtr and_expression() {
    return joined(ExpressionKind::kAnd, "and", [&] { return not_expression(); });
  }
  ExpressionPtr not_expression() {
    if (!is_name("not")) return comparison();
    const Deeper deeper(*this);
    ExpressionPtr out = node(ExpressionKind::kNot, next().place);
    add(*out, not_expression());
    return out;
  }

  ExpressionPtr comparison() {
    ExpressionPtr first = sum();
    ExpressionPtr out;
    while (true) {
      std::string op;
      for (const std::string_view known : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (is_operator(known)) op = known;
      }
      if (is_name("in")) op = "in";
      if (is_name("not") && is_name("in", 1)) {
        op = "not in";
        next();
      }
      if (op.empty()) return out != nullptr ? std::move(out) : std::move(first);
      next();
      if (out == nullptr) {
        out = node(ExpressionKind::kCompare, first->place);
        add(*out, std::move(first));
      }
      out->operators.push_back(op);
      add(*out, sum());
    }
  }

  template <typename Operand>
  ExpressionPtr binary(std::initializer_list<std::string_view> operators, Operand operand) {
    ExpressionPtr left = operand();
    while (true) {
      const auto found = std::find_if(operators.begin(), operators.end(), [&](auto op) { return is_operator(op); });
      if (found == operators.end()) return left;
      ExpressionPtr out = node(ExpressionKind::kBinary, next().place);
      out->name = *found;
      add(*out, std::move(left));
      add(*out, operand());
      left = std::move(out);
    }
  }
  ExpressionPtr sum() {
    return binary({"+", "-"}, [&] { return concatenation(); });
  }
  ExpressionPtr concatenation() {
    ExpressionPtr first = product();
    if (!is_operator("~")) return first;
    ExpressionPtr out = node(ExpressionKind::kConcat, first->place);
    add(*out, std::move(first));
    while (take_operator("~")) add(*out, product());
    return out;
  }
  ExpressionPtr product() {
    return binary({"*", "/", "//", "%"}, [&] { return power(); });
  }
  ExpressionPtr power() {
    return binary({"**"}, [&] { return unary(true); });
  }

  ExpressionPtr unary(bool with_filter) {
    const Deeper deeper(*this);
    ExpressionPtr out;
    if (is_operator("-") || is_operator("+")) {
      const Token sign = next();
      out = node(ExpressionKind::kUnary, sign.place);
      out->name = sign.text;
      add(*out, unary(false));
    } else {
      out = primary();
    }
    out = postfix(std::move(out));
    return with_filter ? filters(std::move(out)) : std::move(out);
  }

  ExpressionPtr constant(Value value, std::size_t place) {
    ExpressionPtr out = node(ExpressionKind::kConstant, place);
    out->constant = std::move(value);
    return out;
  }

  ExpressionPtr primary() {
    const Token token = next();
    switch (token.kind) {
      case TokenKind::kName:
        if (token.text == "true" || token.text == "True") return constant(Value(true), token.place);
        if (token.text == "false" || token.text == "False") return constant(Value(false), token.place);
        if (token.text == "none" || token.text == "None") return constant(Value(None{}), token.place);
        {
          ExpressionPtr out = node(ExpressionKind::kName, token.place);
          out->name = token.text;
          out->number = number_of(token.text);
          return out;
        }
      case TokenKind::kString: {
        auto box = std::make_shared<TextBox>();
        box->text = MarkedText::own(token.text);
        while (peek().kind == TokenKind::kString) box->text.append(std::string_view(next().text));
        return constant(Value(std::shared_ptr<const TextBox>(std::move(box))), token.place);
      }
      case TokenKind::kInteger: {
        std::int64_t whole = 0;
        const auto read = std::from_chars(token.text.data(), token.text.data() + token.text.size(), whole);
        if (read.ec != std::errc()) fail(token, "a number is too large");
        return constant(Value(whole), token.place);
      }
      case TokenKind::kFloat: {
        double real = 0;
        std::from_chars(token.text.data(), token.text.data() + token.text.size(), real);
        return constant(Value(real), token.place);
      }
      case TokenKind::kOperator:
        if (token.text == "(") {
          ExpressionPtr out = tuple(true, true);
          expect_operator(")");
          return out;
        }
        if (token.text == "[") {
          ExpressionPtr out = node(ExpressionKind::kList, token.place);
          while (!is_operator("]")) {
            if (!out->parts.empty()) expect_operator(",");
            if (is_operator("]")) break;
            add(*out, expression());
          }
          next();
          return out;
        }
        if (token.text == "{") {
          ExpressionPtr out = node(ExpressionKind::kDict, token.place);
          while (!is_operator("}")) {
            if (!out->parts.empty()) expect_operator(",");
            if (is_operator("}")) break;
            add(*out, expression());
            expect_operator(":");
            add(*out, expression());
          }
          next();
          return out;
        }
        [[fallthrough]];
      default:
        fail(token, fmt::format("expected an expression, saw {}", shown(token)));
    }
  }

  ExpressionPtr postfix(ExpressionPtr value) {
    while (true) {
      if (is_operator(".")) {
        const std::size_t place = next().place;
        if (peek().kind == TokenKind::kInteger) {
          ExpressionPtr out = node(ExpressionKind::kItem, place);
          add(*out, std::move(value));
          add(*out, primary());
          value = std::move(out);
          continue;
        }
        ExpressionPtr out = node(ExpressionKind::kAttribute, place);
        out->name = some_name();
        add(*out, std::move(value));
        value = std::move(out);
      } else if (is_operator("[")) {
        value = subscript(std::move(value));
      } else if (is_operator("(")) {
        ExpressionPtr out = node(ExpressionKind::kCall, peek().place);
        add(*out, std::move(value));
        arguments(*out);
        value = std::move(out);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr value) {
    const std::size_t place = next().place;
    ExpressionPtr begin, end, step;
    const auto stops = [&] { return is_operator(":") || is_operator("]"); };
    if (!stops()) begin = expression();
    if (!is_operator(":")) {
      ExpressionPtr out = node(ExpressionKind::kItem, place);
      add(*out, std::move(value));
      add(*out, std::move(begin));
      expect_operator("]");
      if (out->parts[1] == nullptr) fail(peek(), "expected an index between [ and ]");
      return out;
    }
    next();
    if (!stops()) end = expression();
    if (take_operator(":") && !stops()) step = expression();
    expect_operator("]");
    ExpressionPtr out = node(ExpressionKind::kSlice, place);
    add(*out, std::move(value));
    add(*out, std::move(begin));
    add(*out, std::move(end));
    add(*out, std::move(step));
    return out;
  }

  void arguments(Expression& call) {
    expect_operator("(");
    bool first = true;
    while (!is_operator(")")) {
      if (!first) expect_operator(",");
      first = false;
      if (is_operator(")")) break;
      if (is_operator("*") || is_operator("**")) fail(peek(), "arguments with * are not supported");
      if (peek().kind == TokenKind::kName && is_operator("=", 1)) {
        std::string name = next().text;
        next();
        ExpressionPtr value = expression();
        call.depth = std::max(call.depth, value->depth + 1);
        call.named.emplace_back(std::move(name), std::move(value));
      } else {
        if (!call.named.empty()) fail(peek(), "expected an argument with a name");
        add(call, expression());
      }
    }
    next();
  }

  ExpressionPtr filters(ExpressionPtr value) {
    while (true) {
      if (is_operator("|"))
        value = filter(std::move(value), false);
      else if (is_name("is"))
        value = test(std::move(value));
      else if (is_operator("("))
        value = postfix(std::move(value));
      else
        return value;
    }
  }

  std::string dotted_name() {
    std::string name = some_name();
    while (take_operator(".")) name += "." + some_name();
    return name;
  }

  /// `value` null: of a block; `inline_start`: the first | is left out.
  ExpressionPtr filter(ExpressionPtr value, bool inline_start) {
    while (is_operator("|") || inline_start) {
      if (!inline_start) next();
      inline_start = false;
      ExpressionPtr out = node(ExpressionKind::kFilter, peek().place);
      out->name = dotted_name();
      add(*out, std::move(value));
      if (is_operator("(")) arguments(*out);
      value = std::move(out);
    }
    return value;
  }

  ExpressionPtr test(ExpressionPtr value) {
    ExpressionPtr out = node(ExpressionKind::kTest, next().place);
    const bool negated = take_name("not");
    out->name = dotted_name();
    add(*out, std::move(value));
    const Token& token = peek();
    const bool operand = token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
                         token.kind == TokenKind::kFloat || is_operator("[") || is_operator("{") ||
                         (token.kind == TokenKind::kName && !is_name("else") && !is_name("or") && !is_name("and"));
    if (is_operator("(")) {
      arguments(*out);
    } else if (operand) {
      if (is_name("is")) fail(token, "tests cannot be chained with 'is'");
      add(*out, postfix(primary()));
    }
    if (!negated) return out;
    ExpressionPtr opposite = node(ExpressionKind::kNot, out->place);
    add(*opposite, std::move(out));
    return opposite;
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int blocks_ = 0, loops_ = 0, depth_ = 0;
  Program program_;
};

}  // namespace

Program parse_program(std::string_view source) {
  return Parser(source).run();
}

}  // namespace tailor::jinja
