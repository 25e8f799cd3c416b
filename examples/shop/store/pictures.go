package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// maxUpload bounds a picture's thumbnails, which come as base64.
const maxUpload = 64 << 20

// picture is a picture as clients see it.
type picture struct {
	ID         int64       `json:"id"`
	Width      int         `json:"width"`
	Height     int         `json:"height"`
	Thumbnails []thumbnail `json:"thumbnails"`
}

type thumbnail struct {
	Width int    `json:"width"`
	URL   string `json:"url"`
}

// add adds a thumbnail. Its URL has the place and not the width, which two thumbnails may share.
func (p *picture) add(place, width int) {
	p.Thumbnails = append(p.Thumbnails, thumbnail{width, fmt.Sprintf("/pictures/%d/%d", p.ID, place)})
}

// upload is a picture as resize sends it.
type upload struct {
	User       *int64 `json:"user"`
	Width      int    `json:"width"`
	Height     int    `json:"height"`
	Thumbnails []struct {
		Place int    `json:"place"`
		Width int    `json:"width"`
		JPEG  []byte `json:"jpeg"`
	} `json:"thumbnails"`
}

func (s *store) addPicture(w http.ResponseWriter, r *http.Request) {
	var up upload
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxUpload)).Decode(&up); err != nil {
		refuse(w, http.StatusBadRequest, "not a picture with thumbnails")
		return
	}
	p, err := s.insert(r.Context(), &up)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Location", fmt.Sprintf("/pictures/%d", p.ID))
	reply(w, http.StatusCreated, p)
}

// insert stores a picture with all its thumbnails, or nothing, in one transaction with what else comes at the time. It
// returns [sql.ErrNoRows] if there is no such user.
func (s *store) insert(ctx context.Context, up *upload) (*picture, error) {
	p := &picture{Width: up.Width, Height: up.Height}
	err := s.batch.Do(ctx, func(ctx context.Context, tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `insert into pictures (user_id, width, height)
			select ?1, ?2, ?3 where ?1 is null or exists (select 1 from users where id = ?1) returning id`,
			up.User, up.Width, up.Height).Scan(&p.ID)
		if err != nil {
			return err
		}
		for _, t := range up.Thumbnails {
			_, err := tx.ExecContext(ctx, `insert into thumbnails (picture_id, place, width, jpeg) values (?, ?, ?, ?)`,
				p.ID, t.Place, t.Width, t.JPEG)
			if err != nil {
				return err
			}
			p.add(t.Place, t.Width)
		}
		return nil
	})
	return p, err
}

// pictures answers with the latest pictures of a user.
func (s *store) pictures(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.FormValue("user"), 10, 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, "user is not a number")
		return
	}
	all, err := s.find(r.Context(), `p.id in (select id from pictures where user_id = ? order by id desc limit 20)`, id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, all)
}

func (s *store) picture(w http.ResponseWriter, r *http.Request) {
	found, err := s.find(r.Context(), `p.id = ?`, r.PathValue("id"))
	if err == nil && len(found) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, found[0])
}

// find returns the pictures for which condition holds, latest first.
func (s *store) find(ctx context.Context, condition string, arg any) ([]picture, error) {
	rows, err := s.db.QueryContext(ctx, `select p.id, p.width, p.height, t.place, t.width
		from pictures p join thumbnails t on t.picture_id = p.id
		where `+condition+` order by p.id desc, t.place`, arg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	all := []picture{}
	for rows.Next() {
		var p picture
		var place, width int
		if err := rows.Scan(&p.ID, &p.Width, &p.Height, &place, &width); err != nil {
			return nil, err
		}
		if len(all) == 0 || all[len(all)-1].ID != p.ID {
			all = append(all, p)
		}
		all[len(all)-1].add(place, width)
	}
	return all, rows.Err()
}

// thumbnail answers with a JPEG. It takes the place of a thumbnail, and its width as well.
func (s *store) thumbnail(w http.ResponseWriter, r *http.Request) {
	var jpeg []byte
	row := s.db.QueryRowContext(r.Context(),
		`select jpeg from thumbnails where picture_id = ?1 and (place = ?2 or width = ?2) order by place limit 1`,
		r.PathValue("id"), r.PathValue("width"))
	if err := row.Scan(&jpeg); err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "image/jpeg")
	w.Header().Set("Cache-Control", "public, max-age=86400")
	w.Header().Set("Etag", fmt.Sprintf(`"%x"`, sha256.Sum256(jpeg)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(jpeg)) // answers If-None-Match, too
}
