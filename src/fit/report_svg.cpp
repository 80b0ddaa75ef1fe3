#include "fit/report_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "text/unicode.h"

namespace tailor {
namespace {

std::string inside(std::string_view tag, std::string_view tip) {
  if (tip.empty()) return "/>";
  return fmt::format("><title>{}</title></{}>", escape_html(tip), tag);
}

double distance_to(const Box& box, double x, double y) {
  const double dx = std::max({box.x - x, 0.0, x - box.x - box.w});
  const double dy = std::max({box.y - y, 0.0, y - box.y - box.h});
  return std::hypot(dx, dy);
}

double overlap(const Box& a, const Box& b) {
  const double w = std::min(a.x + a.w, b.x + b.w) - std::max(a.x, b.x);
  const double h = std::min(a.y + a.h, b.y + b.h) - std::max(a.y, b.y);
  return w > 0 && h > 0 ? w * h : 0;
}

}  // namespace

std::string svg_number(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

Svg::Svg(double width, double height, std::string_view title, std::string_view description,
         std::string_view css_class) {
  out_ = fmt::format(
      R"(<svg class="{}" viewBox="0 0 {} {}" width="{}" height="{}" style="max-width:{}px" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>)",
      css_class, svg_number(width), svg_number(height), svg_number(width), svg_number(height), svg_number(width),
      escape_html(title), escape_html(title), escape_html(description));
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  out_ += fmt::format(R"(<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>)", css_class, svg_number(x1),
                      svg_number(y1), svg_number(x2), svg_number(y2));
}

void Svg::rect(double x, double y, double w, double h, std::string_view css_class, std::string_view tip,
               double opacity) {
  const std::string fill = opacity < 1 ? fmt::format(R"( fill-opacity="{:.2f}")", opacity) : "";
  out_ +=
      fmt::format(R"(<rect class="{}" x="{}" y="{}" width="{}" height="{}"{}{})", css_class, svg_number(x),
                  svg_number(y), svg_number(std::max(0.0, w)), svg_number(std::max(0.0, h)), fill, inside("rect", tip));
}

void Svg::circle(double x, double y, double r, std::string_view css_class, std::string_view tip) {
  out_ += fmt::format(R"(<circle class="{}" cx="{}" cy="{}" r="{}"{})", css_class, svg_number(x), svg_number(y),
                      svg_number(r), inside("circle", tip));
}

void Svg::marker(char shape, double x, double y, double r, std::string_view css_class, std::string_view tip) {
  if (shape == 's') return rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r, css_class, tip);
  if (shape != '^' && shape != 'v') return circle(x, y, r, css_class, tip);
  const double up = shape == '^' ? -1 : 1;
  out_ += fmt::format(R"(<path class="{}" d="M{} {}L{} {}L{} {}Z"{})", css_class, svg_number(x),
                      svg_number(y + up * 1.2 * r), svg_number(x - 1.1 * r), svg_number(y - up * 0.8 * r),
                      svg_number(x + 1.1 * r), svg_number(y - up * 0.8 * r), inside("path", tip));
}

void Svg::path(std::string_view d, std::string_view css_class) {
  out_ += fmt::format(R"(<path class="{}" d="{}"/>)", css_class, d);
}

void Svg::text(double x, double y, std::string_view text, std::string_view css_class, std::string_view anchor) {
  out_ += fmt::format(R"(<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>)", css_class, svg_number(x),
                      svg_number(y), anchor, escape_html(text));
}

void Svg::vertical_text(double x, double y, std::string_view text, std::string_view css_class,
                        std::string_view anchor) {
  out_ += fmt::format(
      R"x(<text class="{}" x="0" y="0" text-anchor="{}" transform="translate({} {}) rotate(-90)">{}</text>)x",
      css_class, anchor, svg_number(x), svg_number(y), escape_html(text));
}

std::string Svg::finish() && {
  return std::move(out_) + "</svg>";
}

double Scale::operator()(double value) const {
  double share = 0;
  if (logarithmic) {
    share = (std::log(std::max(value, low)) - std::log(low)) / (std::log(high) - std::log(low));
  } else {
    share = (value - low) / (high - low);
  }
  return from + share * (to - from);
}

std::vector<double> Scale::ticks(std::size_t about) const {
  std::vector<double> out;
  if (logarithmic) {
    const double decades = std::log10(high / low);
    const int stride =
        std::max(1, static_cast<int>(std::ceil(decades / static_cast<double>(std::max<std::size_t>(about, 1)))));
    const std::vector<double> steps = decades < 1.2 ? std::vector<double>{1, 2, 3, 5}
                                      : decades < 3 ? std::vector<double>{1, 3}
                                                    : std::vector<double>{1};
    const int first = static_cast<int>(std::floor(std::log10(low)));
    for (int e = first; e <= std::log10(high) + 1e-9; ++e) {
      if ((e - first) % stride != 0) continue;
      for (const double step : steps) {
        const double tick = step * std::pow(10.0, e);
        if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) out.push_back(tick);
      }
    }
    return out;
  }
  const double raw = (high - low) / static_cast<double>(std::max<std::size_t>(about, 1));
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double nice : {1.0, 2.0, 5.0}) {
    if (nice * power >= raw) {
      step = nice * power;
      break;
    }
  }
  for (double tick = std::ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step)
    out.push_back(std::abs(tick) < 1e-12 ? 0 : tick);
  return out;
}

QualityRange quality_range(const std::vector<Interval>& scores) {
  if (scores.empty()) return {};
  double best = 0;
  for (const auto& s : scores) best = std::max(best, s.value);
  std::size_t near = 0;
  for (const auto& s : scores) near += s.value >= best - 0.25 ? 1 : 0;
  QualityRange range;
  range.cut = near < scores.size() && near >= 2 && 3 * near >= scores.size();
  double low = 1, high = 0;
  for (const auto& s : scores) {
    if (range.cut && s.value < best - 0.25) continue;
    low = std::min({low, s.low, s.value});
    high = std::max({high, s.high, s.value});
  }
  const double margin = std::max(0.01, 0.08 * (high - low));
  range.low = std::max(0.0, low - margin);
  range.high = std::min(1.0, high + margin);
  if (!range.cut && range.low < 0.2) range.low = 0;
  return range;
}

void place_labels(std::vector<PlacedLabel>& labels, const std::vector<Box>& obstacles, const Box& field) {
  std::vector<Box> placed;
  for (auto& label : labels) {
    double least = std::numeric_limits<double>::max();
    for (const double distance : {8.0, 16.0, 26.0, 38.0, 52.0, 68.0, 86.0}) {
      for (int direction = 0; direction < 12; ++direction) {
        // Right first, then left, above, below, and the slants between them.
        static constexpr std::array<double, 12> kAngles = {0, 180, -90, 90, -45, 45, -135, 135, -20, 20, -160, 160};
        const double angle = kAngles[static_cast<std::size_t>(direction)] * 3.14159265358979 / 180;
        const double ax = label.x + distance * std::cos(angle), ay = label.y + distance * std::sin(angle);
        const double side = std::cos(angle);
        const Box box{side > 0.3    ? ax
                      : side < -0.3 ? ax - label.w
                                    : ax - label.w / 2,
                      std::abs(side) > 0.9 ? ay - label.h / 2 : (std::sin(angle) < 0 ? ay - label.h : ay), label.w,
                      label.h};
        double cost = distance + 0.6 * direction;
        for (const Box& other : placed) cost += 40 * overlap(box, {other.x - 2, other.y - 1, other.w + 4, other.h + 2});
        for (const Box& other : obstacles) cost += 30 * overlap(box, other);
        for (const auto& other : labels) {
          if (&other != &label && distance_to(box, other.x, other.y) < 1.3 * distance_to(box, label.x, label.y))
            cost += 40;
        }
        const double outside = std::max(0.0, field.x - box.x) + std::max(0.0, box.x + box.w - field.x - field.w) +
                               std::max(0.0, field.y - box.y) + std::max(0.0, box.y + box.h - field.y - field.h);
        cost += 200 * outside;
        if (cost < least) {
          least = cost;
          label.box = box;
          label.leader = distance > 15;
        }
      }
    }
    placed.push_back(label.box);
  }
}

}  // namespace tailor
