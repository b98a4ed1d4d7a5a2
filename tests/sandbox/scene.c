/* scene.c - procedural pictures that a person likes to look at: ridges at dusk, the sea, paper-cut contours, silk,
 * discs in the manner of old posters, stained glass. Words of the prompt choose scene and colours, its hash the rest.
 *
 * Smooth fields are computed on a coarse grid and interpolated; only edges and grain are done per pixel, which keeps a
 * megapixel well below a second. */
#include "picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TAU 6.2831853F

struct rgb {
    float r, g, b;
};

struct palette {
    struct rgb sky, low, glow, far, near, accent;
    bool is_night;
};

struct scene {
    struct pixels *out;
    struct palette pal;
    uint64_t seed;
    float w, h, unit; /* unit: the shorter side */
    bool wants_tower;
};

static float mixf(float a, float b, float t)
{
    return a + (b - a) * t;
}

static float clampf(float v, float low, float high)
{
    return v < low ? low : v > high ? high : v;
}

static float smooth(float from, float to, float v)
{
    float t = clampf((v - from) / (to - from), 0, 1);
    return t * t * (3 - 2 * t);
}

static struct rgb mix(struct rgb a, struct rgb b, float t)
{
    return (struct rgb){ mixf(a.r, b.r, t), mixf(a.g, b.g, t), mixf(a.b, b.b, t) };
}

static struct rgb scale(struct rgb a, float k)
{
    return (struct rgb){ a.r * k, a.g * k, a.b * k };
}

static uint64_t scramble(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9ULL;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

/* 0..1, the k-th number of this picture */
static float dice(uint64_t seed, unsigned k)
{
    return (float)(scramble(seed + 0x9E3779B97F4A7C15ULL * (k + 1)) >> 40) / 16777216.0F;
}

static float lattice(uint64_t seed, int x, int y)
{
    uint64_t at = (uint64_t)(uint32_t)x << 32 | (uint32_t)y;
    return (float)(scramble(seed ^ at) >> 40) / 16777216.0F;
}

static float noise(uint64_t seed, float x, float y)
{
    float fx = floorf(x), fy = floorf(y);
    float tx = x - fx, ty = y - fy;
    int ix = (int)fx, iy = (int)fy;
    tx = tx * tx * tx * (tx * (tx * 6 - 15) + 10);
    ty = ty * ty * ty * (ty * (ty * 6 - 15) + 10);
    return mixf(mixf(lattice(seed, ix, iy), lattice(seed, ix + 1, iy), tx),
                mixf(lattice(seed, ix, iy + 1), lattice(seed, ix + 1, iy + 1), tx), ty);
}

static float fbm(uint64_t seed, float x, float y, int octaves)
{
    float sum = 0, amp = 0.5F, all = 0;
    for (int i = 0; i < octaves; i++) {
        sum += amp * noise(seed + (uint64_t)i * 7919, x, y);
        all += amp;
        amp *= 0.5F;
        float rx = x * 1.62F + y * 1.21F; /* turned a little each time: hides the lattice */
        y = y * 1.62F - x * 1.21F + 5.3F;
        x = rx;
    }
    return sum / all;
}

/* Perceptual colour: lightness 0..1, chroma 0..0.3, hue in degrees. */
static struct rgb oklch(float light, float chroma, float hue)
{
    float a = chroma * cosf(hue * TAU / 360), b = chroma * sinf(hue * TAU / 360);
    float l = light + 0.3963378F * a + 0.2158038F * b;
    float m = light - 0.1055613F * a - 0.0638542F * b;
    float s = light - 0.0894842F * a - 1.2914855F * b;
    l = l * l * l;
    m = m * m * m;
    s = s * s * s;
    float c[3] = { 4.0767417F * l - 3.3077116F * m + 0.2309699F * s, -1.268438F * l + 2.6097574F * m - 0.3413194F * s,
                   -0.0041961F * l - 0.7034186F * m + 1.7076147F * s };
    for (int i = 0; i < 3; i++) {
        float v = clampf(c[i], 0, 1);
        c[i] = v <= 0.0031308F ? 12.92F * v : 1.055F * powf(v, 1 / 2.4F) - 0.055F;
    }
    return (struct rgb){ c[0], c[1], c[2] };
}

static void put(const struct scene *s, int x, int y, struct rgb c)
{
    size_t at = ((size_t)y * (size_t)s->out->width + (size_t)x) * 3;
    float grain = (lattice(s->seed ^ 0xABCD, x, y) - 0.5F) * 2.6F / 255; /* also dithers the gradients */
    float v[3] = { c.r + grain, c.g + grain, c.b + grain };
    for (int i = 0; i < 3; i++)
        s->out->data[at + (size_t)i] = (unsigned char)(clampf(v[i], 0, 1) * 255 + 0.5F);
}

/* A smooth field on a coarse grid. */
struct field {
    int w, h;
    float *v;
    float kx, ky;
};

static struct field field_new(const struct scene *s, int longest)
{
    struct field f;
    int side = s->out->width > s->out->height ? s->out->width : s->out->height;
    int want = side < longest ? side : longest;
    f.w = s->out->width * want / side + 2;
    f.h = s->out->height * want / side + 2;
    f.kx = (float)(f.w - 2) / s->w;
    f.ky = (float)(f.h - 2) / s->h;
    f.v = text_alloc((size_t)f.w * (size_t)f.h * sizeof *f.v);
    return f;
}

static float field_at(const struct field *f, float x, float y)
{
    float px = clampf(x * f->kx, 0, (float)f->w - 1.01F), py = clampf(y * f->ky, 0, (float)f->h - 1.01F);
    int ix = (int)px, iy = (int)py;
    const float *p = f->v + (size_t)iy * (size_t)f->w + ix;
    float tx = px - (float)ix, ty = py - (float)iy;
    return mixf(mixf(p[0], p[1], tx), mixf(p[f->w], p[f->w + 1], tx), ty);
}

/* ---- ridges: mountains in layers of mist ---- */

#define RIDGES 6

static struct rgb sky_at(const struct scene *s, const struct field *cloud, float x, float y, float v, float sun_x,
                         float sun_y)
{
    const struct palette *p = &s->pal;
    struct rgb c = mix(p->sky, p->low, smooth(0.0F, 0.68F, v));
    float dx = (x - sun_x) / s->unit, dy = (y - sun_y) / s->unit;
    float d = sqrtf(dx * dx + dy * dy);
    c = mix(c, p->glow, 0.55F * expf(-d * 3.2F));
    float streak = smooth(0.48F, 0.8F, field_at(cloud, x, y)) * smooth(0.75F, 0.2F, v);
    c = mix(c, mix(p->low, p->glow, 0.5F), streak * (p->is_night ? 0.25F : 0.6F));
    if (p->is_night) {
        float cell = s->unit / 90; /* at most one star a cell */
        int cx = (int)(x / cell), cy = (int)(y / cell);
        float chance = lattice(s->seed ^ 77, cx, cy);
        if (chance > 0.9F) {
            float ox = (lattice(s->seed ^ 78, cx, cy) * 0.6F + 0.2F) * cell - (x - (float)cx * cell);
            float oy = (lattice(s->seed ^ 79, cx, cy) * 0.6F + 0.2F) * cell - (y - (float)cy * cell);
            float r = s->unit / 900 * (0.6F + (chance - 0.9F) * 14);
            float star = smooth(r + 0.8F, r * 0.3F, sqrtf(ox * ox + oy * oy));
            c = mix(c, (struct rgb){ 1, 0.98F, 0.93F }, star * smooth(0.7F, 0.1F, v));
        }
    }
    float disc = s->unit * 0.062F;
    return mix(c, mix(p->glow, (struct rgb){ 1, 1, 0.97F }, 0.65F), smooth(disc + 1.2F, disc - 1.2F, d * s->unit));
}

static struct field cloud_field(const struct scene *s, float stretch)
{
    struct field f = field_new(s, 256);
    for (int y = 0; y < f.h; y++)
        for (int x = 0; x < f.w; x++) {
            float fx = (float)x / f.kx / s->unit, fy = (float)y / f.ky / s->unit;
            float bend = fbm(s->seed ^ 5, fx * 2, fy * 3, 3);
            f.v[y * f.w + x] = fbm(s->seed ^ 6, fx * 1.6F + bend, fy * stretch + bend * 1.5F, 5);
        }
    return f;
}

static void scene_ridges(struct scene *s)
{
    struct field cloud = cloud_field(s, 7);
    size_t width = (size_t)s->out->width;
    float *ridge = text_alloc(RIDGES * width * sizeof *ridge);
    float sun_x = s->w * (0.22F + 0.56F * dice(s->seed, 10)), sun_y = s->h * (0.2F + 0.22F * dice(s->seed, 11));

    for (int i = 0; i < RIDGES; i++) {
        float depth = (float)i / (RIDGES - 1);
        float base = s->h * mixf(0.46F, 0.93F, powf(depth, 1.15F));
        float amp = s->h * mixf(0.20F, 0.13F, depth);
        for (size_t x = 0; x < width; x++) {
            float u = (float)x / s->unit;
            float rough = fbm(s->seed + 100U * (unsigned)i, u * mixf(1.5F, 2.6F, depth) + 9.7F * (float)i, 0.37F, 7);
            float peak = 1 - fabsf(2 * fbm(s->seed + 31U * (unsigned)i, u * mixf(1.3F, 2.0F, depth), 4.1F, 4) - 1);
            ridge[(size_t)i * width + x] = base - amp * (rough * 1.1F + peak * mixf(0.9F, 0.3F, depth) - 0.75F);
        }
    }
    for (int y = 0; y < s->out->height; y++) {
        for (int x = 0; x < s->out->width; x++) {
            struct rgb c = sky_at(s, &cloud, (float)x, (float)y, (float)y / s->h, sun_x, sun_y);
            for (int i = 0; i < RIDGES; i++) {
                float depth = (float)i / (RIDGES - 1);
                float below = (float)y - ridge[(size_t)i * width + (size_t)x];
                if (below < -1)
                    continue;
                struct rgb body = mix(s->pal.far, s->pal.near, powf(depth, 0.8F));
                float near_sun = expf(-fabsf((float)x - sun_x) / s->unit * 2.4F);
                body = mix(body, s->pal.glow, 0.20F * near_sun * (1 - depth));
                float mist = smooth(0.0F, 0.22F, below / s->h) * mixf(0.62F, 0.05F, depth);
                c = mix(c, mix(body, s->pal.low, mist), smooth(-1, 1, below));
            }
            put(s, x, y, c);
        }
    }
    free(ridge);
    free(cloud.v);
}

/* ---- sea: a low sun and its road of light ---- */

static void scene_sea(struct scene *s)
{
    struct field cloud = cloud_field(s, 9);
    float horizon = s->h * (0.46F + 0.1F * dice(s->seed, 10));
    float sun_x = s->w * (0.25F + 0.5F * dice(s->seed, 11)),
          sun_y = horizon - s->h * (0.06F + 0.16F * dice(s->seed, 12));
    float isle_x = s->w * (dice(s->seed, 13) < 0.5F ? 0.16F : 0.84F),
          isle_w = s->w * (0.16F + 0.1F * dice(s->seed, 14));
    float tower = s->wants_tower || dice(s->seed, 15) < 0.4F ? s->unit * 0.17F : 0; /* a lighthouse on the island */

    for (int y = 0; y < s->out->height; y++) {
        for (int x = 0; x < s->out->width; x++) {
            float fx = (float)x, fy = (float)y, u = fx / s->unit;
            struct rgb c;
            if (fy < horizon) {
                c = sky_at(s, &cloud, fx, fy, fy * 0.68F / horizon, sun_x, sun_y);
            } else {
                float depth = (fy - horizon) / (s->h - horizon);
                float away = 1 / (depth + 0.035F);
                float wave = noise(s->seed ^ 21, u * (3 + away * 2.2F), away * 6) * 0.6F +
                             noise(s->seed ^ 22, u * (9 + away * 5), away * 17 + u) * 0.4F;
                c = mix(mix(s->pal.low, s->pal.far, 0.45F), s->pal.near, smooth(0, 0.9F, depth));
                c = mix(c, s->pal.sky, 0.45F * smooth(0.45F, 0.75F, wave) * (1 - 0.6F * depth));
                float road = expf(-fabsf(fx - sun_x) / s->unit * mixf(15, 4.5F, depth));
                c = mix(c, s->pal.glow, road * smooth(0.42F, 0.66F, wave) * 0.95F);
                c = scale(c, 1 - 0.12F * smooth(0.6F, 0.35F, wave));
            }
            float off = (fx - isle_x) / isle_w;
            float crest = horizon + s->unit * 0.012F -
                          (1 - off * off) * s->unit * (0.045F + 0.05F * fbm(s->seed ^ 31, u * 9, 2, 5));
            float rock =
                fabsf(off) < 1 ? smooth(-1, 1, fy - crest) * smooth(1, -1, fy - horizon - s->unit * 0.012F) : 0;
            c = mix(c, scale(s->pal.near, 0.7F), rock);
            float top = horizon - s->unit * 0.05F - tower;
            float half = s->unit * mixf(0.011F, 0.02F, clampf((fy - top) / (tower + 1), 0, 1));
            if (tower > 0 && fy > top && fy < horizon - s->unit * 0.03F) {
                float band = fmodf((fy - top) / tower * 5, 2) < 1 ? 1.0F : 0.0F;
                struct rgb wall = mix(s->pal.accent, (struct rgb){ 0.95F, 0.93F, 0.9F }, band);
                float shade = mixf(1, 0.55F, smooth(-half, half, (fx - isle_x) * (sun_x > isle_x ? -1.0F : 1.0F)));
                if (fy < top + tower * 0.13F)
                    wall = (struct rgb){ 1, 0.93F, 0.66F };
                c = mix(c, scale(wall, shade), smooth(half + 0.8F, half - 0.8F, fabsf(fx - isle_x)));
            }
            put(s, x, y, c);
        }
    }
    free(cloud.v);
}

/* ---- contours: sheets of coloured paper, cut and stacked ---- */

static void scene_contours(struct scene *s)
{
    struct field f = field_new(s, 512);
    const float levels = 8;
    float zoom = 1.3F + dice(s->seed, 10);

    for (int y = 0; y < f.h; y++)
        for (int x = 0; x < f.w; x++) {
            float fx = (float)x / f.kx / s->unit * zoom, fy = (float)y / f.ky / s->unit * zoom;
            float wx = fbm(s->seed ^ 1, fx, fy, 2), wy = fbm(s->seed ^ 2, fx + 4, fy, 2);
            f.v[y * f.w + x] = smooth(0.2F, 0.8F, fbm(s->seed ^ 3, fx + wx * 1.2F, fy + wy * 1.2F, 2)) * levels;
        }
    float off = s->unit * 0.012F;
    for (int y = 0; y < s->out->height; y++) {
        for (int x = 0; x < s->out->width; x++) {
            float fx = (float)x, fy = (float)y;
            float v = field_at(&f, fx, fy);
            float slope = fabsf(field_at(&f, fx + 1, fy) - v) + fabsf(field_at(&f, fx, fy + 1) - v) + 1e-4F;
            float level = floorf(v), part = v - level;
            float t = level / (levels - 1), t2 = (level - 1) / (levels - 1);
            struct rgb c =
                t < 0.5F ? mix(s->pal.near, s->pal.accent, t * 2) : mix(s->pal.accent, s->pal.glow, t * 2 - 1);
            struct rgb under = t2 < 0.5F ? mix(s->pal.near, s->pal.accent, clampf(t2, 0, 1) * 2)
                                         : mix(s->pal.accent, s->pal.glow, t2 * 2 - 1);
            c = mix(under, c, clampf(part / slope, 0, 1));
            float shadow = 0;
            for (int k = 1; k <= 4; k++) /* a higher sheet towards the light throws its shadow here */
                shadow +=
                    clampf(floorf(field_at(&f, fx - off * (float)k / 3, fy - off * (float)k / 2.4F)) - level, 0, 1);
            c = scale(c, 1 - 0.11F * shadow);
            c = scale(c, 0.97F + 0.06F * noise(s->seed ^ 9, fx / s->unit * 190, fy / s->unit * 190)); /* paper */
            c = mix(c, (struct rgb){ 1, 1, 1 }, 0.16F * smooth(3 * slope, 0.4F * slope, part));       /* the cut edge */
            put(s, x, y, c);
        }
    }
    free(f.v);
}

/* ---- silk: folded light ---- */

static struct rgb ramp(const struct palette *p, float t)
{
    const struct rgb stop[5] = { scale(p->near, 0.7F), p->accent, p->glow, p->low, p->sky };
    float at = clampf(t, 0, 0.9999F) * 4;
    int i = (int)at;
    float k = at - (float)i;
    return mix(stop[i], stop[i + 1], k * k * (3 - 2 * k));
}

static void scene_silk(struct scene *s)
{
    struct field f = field_new(s, 420), g = field_new(s, 420);
    float zoom = 1.1F + 0.8F * dice(s->seed, 10), turn = dice(s->seed, 11) * TAU;

    for (int y = 0; y < f.h; y++)
        for (int x = 0; x < f.w; x++) {
            float ax = (float)x / f.kx / s->unit * zoom, ay = (float)y / f.ky / s->unit * zoom;
            float fx = ax * cosf(turn) - ay * sinf(turn), fy = ax * sinf(turn) + ay * cosf(turn);
            float qx = fbm(s->seed ^ 1, fx, fy, 3), qy = fbm(s->seed ^ 2, fx + 5.2F, fy + 1.3F, 3);
            float rx = fbm(s->seed ^ 3, fx + 3 * qx, fy + 3 * qy + 1.7F, 3);
            f.v[y * f.w + x] = fbm(s->seed ^ 4, fx + 3.2F * rx, fy + 2.6F * qy, 4);
            g.v[y * f.w + x] = rx;
        }
    for (int y = 0; y < s->out->height; y++) {
        for (int x = 0; x < s->out->width; x++) {
            float fx = (float)x, fy = (float)y, e = s->unit / 200;
            float v = field_at(&f, fx, fy);
            float dx = field_at(&f, fx + e, fy) - field_at(&f, fx - e, fy);
            float dy = field_at(&f, fx, fy + e) - field_at(&f, fx, fy - e);
            float light = clampf(0.5F + (dx * 0.6F + dy * 0.8F) * 14, 0, 1);
            float fold = 0.5F + 0.5F * sinf((v * 5 + field_at(&g, fx, fy) * 3) * TAU);
            struct rgb c = ramp(&s->pal, smooth(0.22F, 0.78F, v) * 0.8F + fold * 0.2F);
            c = scale(c, 0.62F + 0.55F * light);
            c = mix(c, (struct rgb){ 1, 0.98F, 0.94F }, 0.35F * smooth(0.8F, 1, light));
            float vx = fx / s->w - 0.5F, vy = fy / s->h - 0.5F;
            put(s, x, y, scale(c, 1 - 0.7F * (vx * vx + vy * vy)));
        }
    }
    free(f.v);
    free(g.v);
}

/* ---- discs: a poster ---- */

#define DISCS 11

static void scene_discs(struct scene *s)
{
    struct rgb paper = mix((struct rgb){ 0.96F, 0.93F, 0.87F }, s->pal.low, 0.12F);
    struct {
        float x, y, r, cut, sx, sy;
        struct rgb c;
        bool is_ring;
    } d[DISCS];

    for (unsigned i = 0; i < DISCS; i++) {
        unsigned k = 20 + i * 8;
        const struct rgb colors[5] = { s->pal.accent, s->pal.near, s->pal.glow, s->pal.far, s->pal.sky };
        float turn = dice(s->seed, k + 4) * TAU;
        d[i].x = s->w * (0.1F + 0.8F * dice(s->seed, k));
        d[i].y = s->h * (0.1F + 0.8F * dice(s->seed, k + 1));
        d[i].r = s->unit * (i < 3 ? 0.22F + 0.14F * dice(s->seed, k + 2) : 0.04F + 0.13F * dice(s->seed, k + 2));
        d[i].cut = dice(s->seed, k + 3) < 0.45F ? 0.0F : 9.0F; /* half discs */
        d[i].sx = cosf(turn);
        d[i].sy = sinf(turn);
        d[i].is_ring = dice(s->seed, k + 5) < 0.22F;
        d[i].c = colors[(i + (unsigned)(dice(s->seed, 12) * 5)) % 5];
    }
    float lean = (dice(s->seed, 13) - 0.5F) * 1.4F;
    for (int y = 0; y < s->out->height; y++) {
        for (int x = 0; x < s->out->width; x++) {
            float fx = (float)x, fy = (float)y;
            struct rgb c = scale(paper, 0.985F + 0.02F * noise(s->seed ^ 3, fx / s->unit * 240, fy / s->unit * 60));
            float bar = fabsf((fx - s->w / 2) + lean * (fy - s->h / 2)) / s->unit; /* a broad stripe behind all */
            c = mix(c, mix(s->pal.low, paper, 0.35F), smooth(0.161F, 0.158F, bar));
            for (int i = 0; i < DISCS; i++) {
                float dx = fx - d[i].x, dy = fy - d[i].y;
                float dist = sqrtf(dx * dx + dy * dy) - d[i].r;
                float half = dx * d[i].sx + dy * d[i].sy - d[i].cut * d[i].r;
                dist = dist > half ? dist : half;
                if (d[i].is_ring)
                    dist = fabsf(dist + d[i].r * 0.12F) - d[i].r * 0.12F;
                float shade = smooth(s->unit * 0.03F, -s->unit * 0.01F, dist - s->unit * 0.002F);
                c = scale(c, 1 - 0.16F * shade * smooth(-1, 1, dist));
                float tint = 0.9F + 0.14F * (dx * 0.6F + dy * 0.8F) / (d[i].r + 1);
                float print = 0.94F + 0.08F * noise(s->seed ^ (unsigned)i, fx / s->unit * 130, fy / s->unit * 130);
                c = mix(c, scale(d[i].c, tint * print), smooth(1, -1, dist) * (i < 3 ? 0.94F : 0.9F));
            }
            put(s, x, y, c);
        }
    }
}

/* ---- glass: a leaded window with the sun behind it ---- */

static void scene_glass(struct scene *s)
{
    float cells = 8 + 6 * dice(s->seed, 10);
    float sun_x = 0.2F + 0.6F * dice(s->seed, 11), sun_y = 0.15F + 0.4F * dice(s->seed, 12);

    for (int y = 0; y < s->out->height; y++) {
        for (int x = 0; x < s->out->width; x++) {
            float px = (float)x / s->unit * cells, py = (float)y / s->unit * cells;
            int cx = (int)px, cy = (int)py;
            float best = 9, second = 9, bx = 0, by = 0;
            int ix = 0, iy = 0;
            for (int j = cy - 2; j <= cy + 2; j++)
                for (int i = cx - 2; i <= cx + 2; i++) {
                    float ox = (float)i + lattice(s->seed ^ 1, i, j), oy = (float)j + lattice(s->seed ^ 2, i, j);
                    float d = sqrtf((px - ox) * (px - ox) + (py - oy) * (py - oy));
                    if (d < best) {
                        second = best;
                        best = d;
                        bx = ox;
                        by = oy;
                        ix = i;
                        iy = j;
                    } else if (d < second) {
                        second = d;
                    }
                }
            float u = bx / cells * s->unit / s->w, v = by / cells * s->unit / s->h;
            float d = sqrtf((u - sun_x) * (u - sun_x) + (v - sun_y) * (v - sun_y));
            struct rgb c =
                ramp(&s->pal, clampf(0.62F - d * 0.75F + (lattice(s->seed ^ 3, ix, iy) - 0.5F) * 0.45F, 0, 1));
            if (lattice(s->seed ^ 4, ix, iy) > 0.86F)
                c = s->pal.accent;
            float ripple = fbm(s->seed ^ 5, px * 1.7F + bx * 3, py * 1.7F, 3);
            c = scale(c, 0.72F + 0.5F * ripple + 0.22F * expf(-d * 4));
            float lead = second - best;
            c = mix((struct rgb){ 0.07F, 0.07F, 0.09F }, c, smooth(0.05F, 0.05F + 2.2F * cells / s->unit, lead));
            put(s, x, y, scale(c, 0.86F + 0.14F * smooth(0.05F, 0.3F, lead)));
        }
    }
}

/* ---- which scene, which colours ---- */

enum scene_kind { RIDGES_AT_DUSK, SEA, CONTOURS, SILK, DISCS_ON_PAPER, GLASS, SCENE_KINDS, ANY = -1 };

struct hint {
    const char *word;
    int kind;
    int hue;   /* -1: no opinion */
    int night; /* 1: yes, -1: surely not */
};

static const struct hint hints[] = {
    { "mountain", RIDGES_AT_DUSK, -1, 0 },
    { "hill", RIDGES_AT_DUSK, -1, 0 },
    { "valley", RIDGES_AT_DUSK, -1, 0 },
    { "landscape", RIDGES_AT_DUSK, -1, 0 },
    { "desert", RIDGES_AT_DUSK, 60, 0 },
    { "forest", RIDGES_AT_DUSK, 150, 0 },
    { "castle", RIDGES_AT_DUSK, -1, 0 },
    { "sea", SEA, -1, 0 },
    { "ocean", SEA, -1, 0 },
    { "lighthouse", SEA, -1, 0 },
    { "harbour", SEA, -1, 0 },
    { "harbor", SEA, -1, 0 },
    { "beach", SEA, -1, 0 },
    { "boat", SEA, -1, 0 },
    { "ship", SEA, -1, 0 },
    { "lake", SEA, -1, 0 },
    { "river", CONTOURS, -1, 0 },
    { "map", CONTOURS, -1, 0 },
    { "paper", CONTOURS, -1, 0 },
    { "topograph", CONTOURS, -1, 0 },
    { "silk", SILK, -1, 0 },
    { "smoke", SILK, -1, 0 },
    { "fabric", SILK, -1, 0 },
    { "nebula", SILK, 300, 1 },
    { "space", SILK, 280, 1 },
    { "dream", SILK, -1, 0 },
    { "abstract", SILK, -1, 0 },
    { "poster", DISCS_ON_PAPER, -1, 0 },
    { "geometric", DISCS_ON_PAPER, -1, 0 },
    { "logo", DISCS_ON_PAPER, -1, 0 },
    { "bicycle", DISCS_ON_PAPER, -1, 0 },
    { "kettle", DISCS_ON_PAPER, -1, 0 },
    { "robot", DISCS_ON_PAPER, -1, 0 },
    { "glass", GLASS, -1, 0 },
    { "window", GLASS, -1, 0 },
    { "cathedral", GLASS, -1, 0 },
    { "mosaic", GLASS, -1, 0 },
    { "night", ANY, -1, 1 },
    { "moon", ANY, -1, 1 },
    { "star", ANY, -1, 1 },
    { "sunset", ANY, 45, -1 },
    { "dawn", ANY, 40, -1 },
    { "dusk", ANY, 35, -1 },
    { "fire", ANY, 45, 0 },
    { "red", ANY, 25, 0 },
    { "orange", ANY, 60, 0 },
    { "gold", ANY, 85, 0 },
    { "yellow", ANY, 95, 0 },
    { "green", ANY, 145, 0 },
    { "teal", ANY, 195, 0 },
    { "blue", ANY, 250, 0 },
    { "purple", ANY, 305, 0 },
    { "violet", ANY, 300, 0 },
    { "pink", ANY, 0, 0 },
};

static bool prompt_has(const char *prompt, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = prompt; *p != '\0'; p++) {
        char before = p == prompt ? ' ' : p[-1];
        bool starts = !((before >= 'a' && before <= 'z') || (before >= 'A' && before <= 'Z'));
        if (starts && text_casecmp_n(p, word, len) == 0)
            return true;
    }
    return false;
}

static struct palette scene_palette(uint64_t seed, float hue, bool is_night)
{
    float cool = hue + (dice(seed, 3) < 0.5F ? 150.0F : -140.0F) + 30 * dice(seed, 4);
    if (is_night) {
        cool = 235 + 70 * dice(seed, 4); /* nights are blue to violet, whatever glows in them */
        return (struct palette){
            .sky = oklch(0.20F, 0.06F, cool),
            .low = oklch(0.47F, 0.09F, cool + 20),
            .glow = oklch(0.88F, 0.07F, hue),
            .far = oklch(0.36F, 0.07F, cool),
            .near = oklch(0.13F, 0.03F, cool),
            .accent = oklch(0.62F, 0.16F, hue),
            .is_night = true,
        };
    }
    return (struct palette){
        .sky = oklch(0.62F, 0.10F, cool),
        .low = oklch(0.86F, 0.08F, hue + 12),
        .glow = oklch(0.90F, 0.12F, hue + 35),
        .far = oklch(0.66F, 0.075F, cool + 12),
        .near = oklch(0.24F, 0.06F, cool),
        .accent = oklch(0.64F, 0.18F, hue),
    };
}

void scene_draw(struct pixels *out, const char *prompt, uint64_t seed)
{
    uint64_t own = scramble(text_hash(prompt, strlen(prompt)) ^ scramble(seed + 1));
    int kind = ANY;
    float hue = -1;
    bool is_night = dice(own, 1) < 0.25F;

    for (size_t i = 0; i < ARRAY_LEN(hints); i++) {
        if (!prompt_has(prompt, hints[i].word))
            continue;
        if (kind == ANY)
            kind = hints[i].kind;
        if (hue < 0 && hints[i].hue >= 0)
            hue = (float)hints[i].hue + 16 * (dice(own, 5) - 0.5F);
        if (hints[i].night != 0)
            is_night = hints[i].night > 0;
    }
    if (kind == ANY)
        kind = (int)(dice(own, 0) * SCENE_KINDS) % SCENE_KINDS;
    if (hue < 0)
        hue = kind == RIDGES_AT_DUSK || kind == SEA ? 15 + 75 * dice(own, 2) : dice(own, 2) * 360; /* warm evenings */

    struct scene s = {
        .out = out,
        .seed = own,
        .w = (float)out->width,
        .h = (float)out->height,
        .unit = (float)(out->width < out->height ? out->width : out->height),
        .pal = scene_palette(own, hue, is_night),
        .wants_tower = prompt_has(prompt, "lighthouse"),
    };
    out->channels = 3;
    out->data = text_alloc((size_t)out->width * (size_t)out->height * 3);
    static void (*const draw[SCENE_KINDS])(struct scene *) = {
        [RIDGES_AT_DUSK] = scene_ridges, [SEA] = scene_sea,     [CONTOURS] = scene_contours, [SILK] = scene_silk,
        [DISCS_ON_PAPER] = scene_discs,  [GLASS] = scene_glass,
    };
    draw[kind](&s);
}
